-- One order that was claimed in vain $3 times, or 3 times more if it is in doubt; none while this worker
-- holds one. It has waited longer after each claim, and once it died as a suspect for $4 ms at least.
-- A recorded event clears an order of the suspicion.
with suspect as (
    select order_id
    from orders
    where lease_until_ms <= (select now_ms())
        and claims >= $3 + case when status = 'submitted' then 3 else 0 end
        and lease_until_ms <= (select now_ms()) - greatest(
            case when claims > $3 then $4 else 0 end, 500 * least(120, 2 ^ (claims - $3)))::bigint
        and not exists (
            select from orders held
            where held.lease_until_ms > (select now_ms())
                and held.worker = $1
                and held.claims > $3 + case when held.status = 'submitted' then 3 else 0 end
        )
    order by lease_until_ms
    limit 1
    for update skip locked
)
update orders o
set worker = $1, fence = o.fence + 1, claims = o.claims + 1, due_at_ms = null, lease_until_ms = now_ms() + $2
where o.order_id = (select order_id from suspect)
returning o.*
