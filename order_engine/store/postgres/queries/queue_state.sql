-- The number of due orders, counted up to $1, and for how long the oldest has been due.
select count(*) as waiting, coalesce(max(now_ms() - due_at_ms), 0) as oldest_due_ms
from (select due_at_ms from orders where due_at_ms <= (select now_ms()) order by due_at_ms limit $1) due
