insert into account_limits (account, orders_per_minute, burst, open_orders, amount_per_order, amount_per_day)
values (?, ?, ?, ?, ?, ?)
on conflict (account) do update
set orders_per_minute = excluded.orders_per_minute, burst = excluded.burst, open_orders = excluded.open_orders,
    amount_per_order = excluded.amount_per_order, amount_per_day = excluded.amount_per_day
