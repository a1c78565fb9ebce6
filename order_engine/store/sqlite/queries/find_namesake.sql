-- The newest order with a client order id, unless it ended before a time.
select order_id
from (
    select order_id, status, updated_at_ms
    from orders
    where account = ?1 and client_order_id = ?2
    order by order_id desc
    limit 1
)
where status not in ('confirmed', 'failed', 'cancelled') or updated_at_ms > ?3
