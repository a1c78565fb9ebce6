-- The oldest orders that ended before a time. An id begins with the time at which it was made (UUIDv7).
select order_id
from orders
where order_id < :before_id
    and status in ('confirmed', 'failed', 'cancelled')
    and updated_at_ms < :before_ms
order by order_id
limit :most
