-- How many orders are due, up to ?2 of them, and for how long the oldest has been.
select count(*) as waiting, coalesce(max(?1 - due_at_ms), 0) as oldest_due_ms
from (select due_at_ms from orders where due_at_ms <= ?1 order by due_at_ms limit ?2)
