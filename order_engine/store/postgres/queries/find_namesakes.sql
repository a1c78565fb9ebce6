-- The newest order of each account and client order id.
select o.account, o.client_order_id, o.order_id
from unnest($1::text[], $2::text[]) as wanted (account, client_order_id)
cross join lateral (
    select account, client_order_id, order_id, status, updated_at_ms
    from orders
    where account = wanted.account and client_order_id = wanted.client_order_id
    order by order_id desc
    limit 1
) o
where o.status not in ('confirmed', 'failed', 'cancelled') or o.updated_at_ms > now_ms() - $3
