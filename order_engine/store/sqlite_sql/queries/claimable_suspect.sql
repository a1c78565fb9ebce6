-- One order that was claimed :suspect_claims times in vain, unless this worker holds one: whatever kills
-- the worker next, it takes no other suspect along. A recorded event clears an order of the suspicion.
select order_id from orders
where lease_until_ms <= :now_ms
    and claims >= :suspect_claims
    and status <> 'submitted'
    and not exists (
        select 1 from orders held
        where held.lease_until_ms > :now_ms and held.worker = :worker and held.claims > :suspect_claims
    )
order by lease_until_ms
limit 1
