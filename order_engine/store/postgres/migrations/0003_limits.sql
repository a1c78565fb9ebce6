-- How much each account may trade, and how much it has used.

create table account_limits (
    account text primary key,
    orders_per_minute integer check (orders_per_minute > 0),
    burst integer not null default 1 check (burst > 0),
    open_orders integer check (open_orders >= 0),
    -- Base units by mint.
    amount_per_order jsonb not null default '{}',
    amount_per_day jsonb not null default '{}',
    -- When the account's orders so far are over, at `orders_per_minute` (the generic cell rate algorithm's theoretical
    -- arrival time).
    busy_until_ms bigint not null default 0
);

create table account_usage (
    account text not null,
    -- Of UTC, counted from 1970.
    day integer not null,
    mint text not null,
    -- Base units that were sold.
    amount numeric not null,
    primary key (account, day, mint)
);

-- Orders of an account with limits are accepted one statement after the other: its row is locked until the commit.
create function check_account_limits() returns trigger
    language plpgsql
as $$
declare
    l record;
    n record;
    at_ms bigint;
    busy_until bigint;
    used numeric;
begin
    if not exists (select from account_limits) then
        return null;
    end if;
    for l in
        select * from account_limits where account in (select account from new_orders) order by account for update
    loop
        at_ms := now_ms();
        if l.orders_per_minute is not null then
            busy_until := greatest(l.busy_until_ms, at_ms)
                + (select count(*) from new_orders where account = l.account) * 60000 / l.orders_per_minute;
            if busy_until - at_ms > l.burst::bigint * 60000 / l.orders_per_minute then
                raise exception 'too fast' using errcode = 'check_violation', constraint = 'orders_within_limits',
                    detail = json_build_array('rate', l.orders_per_minute, at_ms,
                        busy_until - l.burst::bigint * 60000 / l.orders_per_minute);
            end if;
            update account_limits set busy_until_ms = busy_until where account = l.account;
        end if;
        if l.open_orders is not null then
            select count(*) into used
            from orders
            where account = l.account and (due_at_ms is not null or lease_until_ms is not null);
            if used > l.open_orders then
                raise exception 'too many open' using errcode = 'check_violation', constraint = 'orders_within_limits',
                    detail = json_build_array('open', l.open_orders, used - 1, at_ms);
            end if;
        end if;
        for n in
            select token_in_mint as mint, min(token_in) as symbol, min(token_in_decimals) as decimals,
                max(amount_in) as largest, sum(amount_in) as total
            from new_orders where account = l.account group by token_in_mint
        loop
            if n.largest > (l.amount_per_order ->> n.mint)::numeric then
                raise exception 'too large' using errcode = 'check_violation', constraint = 'orders_within_limits',
                    detail = json_build_array('order', n.symbol, n.decimals, l.amount_per_order ->> n.mint, at_ms);
            end if;
            if l.amount_per_day ? n.mint then
                insert into account_usage values (l.account, at_ms / 86400000, n.mint, n.total)
                on conflict (account, day, mint) do update set amount = account_usage.amount + excluded.amount
                returning amount into used;
                if used > (l.amount_per_day ->> n.mint)::numeric then
                    raise exception 'too much' using errcode = 'check_violation', constraint = 'orders_within_limits',
                        detail = json_build_array('day', n.symbol, n.decimals, l.amount_per_day ->> n.mint,
                            (used - n.total)::text, at_ms);
                end if;
            end if;
        end loop;
    end loop;
    return null;
end
$$;

create trigger orders_within_limits after insert on orders
    referencing new table as new_orders
    for each statement execute function check_account_limits();
