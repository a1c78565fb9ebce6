-- One poison order (claimed :poison_claims times without an event, or :poison_claims_in_doubt times in doubt); none
-- while this worker holds one. The wait grows with each claim, and is at least :waited_ms once its worker died with it
-- as a poison order. A recorded event makes it a normal order again.
select order_id from orders
where lease_until_ms <= :now_ms - max(
        case when claims > :poison_claims then :waited_ms else 0 end,
        min(:poison_max_wait_ms, :poison_first_wait_ms << min(claims - :poison_claims, 30)))
    and (status = 'submitted' or not exists (select 1 from pauses p where p.account in ('', orders.account)))
    and claims >= iif(status = 'submitted', :poison_claims_in_doubt, :poison_claims)
    and not exists (
        select 1 from orders held
        where held.lease_until_ms > :now_ms
            and held.worker = :worker
            and held.claims > iif(held.status = 'submitted', :poison_claims_in_doubt, :poison_claims)
    )
order by lease_until_ms
limit 1
