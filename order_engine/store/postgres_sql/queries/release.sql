-- Gives back unfinished orders; the claim is not counted, since nothing went wrong with it.
update orders o
set worker = null, lease_until_ms = null, due_at_ms = now_ms(), claims = greatest(o.claims - 1, 0)
from unnest($2::uuid[], $3::bigint[]) as held (order_id, fence)
where o.order_id = held.order_id and o.fence = held.fence and o.worker = $1
returning o.order_id
