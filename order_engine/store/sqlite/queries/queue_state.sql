-- The number of due orders, counted up to ?2, and for how long the oldest has been due.
select count(*) as waiting, coalesce(max(?1 - due_at_ms), 0) as oldest_due_ms
from (select due_at_ms from orders where due_at_ms <= ?1 order by due_at_ms limit ?2)
