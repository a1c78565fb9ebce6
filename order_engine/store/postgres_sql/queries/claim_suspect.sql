-- One order that was claimed $3 times in vain and has waited for $4 ms, and longer after each further
-- claim; none while this worker holds one. A recorded event clears an order of the suspicion.
with suspect as (
    select order_id
    from orders
    where lease_until_ms <= (select now_ms())
        and claims >= $3
        and lease_until_ms <= (select now_ms()) - greatest($4, 500 * least(120, 2 ^ (claims - $3)))::bigint
        and not exists (
            select from orders held
            where held.lease_until_ms > (select now_ms()) and held.worker = $1 and held.claims > $3
        )
    order by lease_until_ms
    limit 1
    for update skip locked
)
update orders o
set worker = $1, fence = o.fence + 1, claims = o.claims + 1, due_at_ms = null, lease_until_ms = now_ms() + $2
from suspect
where o.order_id = suspect.order_id
returning o.*
