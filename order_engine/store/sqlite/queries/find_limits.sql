select account, orders_per_minute, burst, open_orders, amount_per_order, amount_per_day, busy_until_ms
from account_limits
where account = ?
