-- Gives back unfinished orders; the claim is not counted, since nothing went wrong with it. Poison orders (claimed more
-- than $4 times) get a lapsed lease and no due time, because claim_poison looks only there.
update orders o
set worker = case when o.claims > $4 then o.worker end,
    lease_until_ms = case when o.claims > $4 then now_ms() end,
    due_at_ms = case when o.claims > $4 then null else now_ms() end,
    claims = greatest(o.claims - 1, 0)
from unnest($2::uuid[], $3::bigint[]) as held (order_id, fence)
where o.order_id = held.order_id and o.order_id = any($2::uuid[]) and o.fence = held.fence and o.worker = $1
returning o.order_id
