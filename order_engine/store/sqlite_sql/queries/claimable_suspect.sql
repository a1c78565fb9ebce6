-- One order that was claimed :suspect_claims times in vain and has waited for :waited_ms, and longer after
-- each further claim; none while this worker holds one. A recorded event clears an order of the suspicion.
select order_id from orders
where lease_until_ms <= :now_ms - max(:waited_ms, 500 * min(120, 1 << min(claims - :suspect_claims, 7)))
    and claims >= :suspect_claims
    and not exists (
        select 1 from orders held
        where held.lease_until_ms > :now_ms and held.worker = :worker and held.claims > :suspect_claims
    )
order by lease_until_ms
limit 1
