-- One order that was claimed in vain :poison_claims times, or 3 times more if it is in doubt; none while
-- this worker holds one. It has waited longer after each claim, and once it died as a suspect for
-- :waited_ms at least. A recorded event clears an order of the suspicion.
select order_id from orders
where lease_until_ms <= :now_ms - max(
        case when claims > :poison_claims then :waited_ms else 0 end,
        500 * min(120, 1 << min(claims - :poison_claims, 7)))
    and claims >= :poison_claims + 3 * (status = 'submitted')
    and not exists (
        select 1 from orders held
        where held.lease_until_ms > :now_ms
            and held.worker = :worker
            and held.claims > :poison_claims + 3 * (held.status = 'submitted')
    )
order by lease_until_ms
limit 1
