-- Extends the leases that still have the fence of their claim.
update orders o
set lease_until_ms = now_ms() + $4
from unnest($2::uuid[], $3::bigint[]) as held (order_id, fence)
where o.order_id = held.order_id and o.order_id = any($2::uuid[]) and o.fence = held.fence and o.worker = $1
returning o.order_id
