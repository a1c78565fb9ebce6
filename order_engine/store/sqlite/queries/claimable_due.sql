-- Lapsed leases first, so that a backlog does not delay a dead worker's orders; then due orders.
-- A lease that ends more than :longest_lease_ms from now, or a due time more than :longest_wait_ms from now,
-- was given before the clock was set back: it counts as over. Poison orders (claimed :poison_claims times
-- without an event, or :poison_claims_in_doubt times in doubt) are for claimable_poison.
-- While a pause is on, only signed orders of its account are claimed.
select order_id from (
    select order_id from orders
    where lease_until_ms <= :now_ms and claims < iif(status = 'submitted', :poison_claims_in_doubt, :poison_claims)
        and (status = 'submitted' or not exists (select 1 from pauses p where p.account in ('', orders.account)))
    order by lease_until_ms limit :most
)
union all
select order_id from (
    select order_id from orders
    where lease_until_ms > :now_ms + :longest_lease_ms and claims < iif(status = 'submitted', :poison_claims_in_doubt, :poison_claims)
        and (status = 'submitted' or not exists (select 1 from pauses p where p.account in ('', orders.account)))
    order by lease_until_ms desc limit :most
)
union all
select order_id from (
    select order_id from orders
    where due_at_ms <= :now_ms and (status = 'submitted' or not exists (select 1 from pauses p where p.account in ('', orders.account)))
    order by due_at_ms limit :most
)
union all
select order_id from (
    select order_id from orders
    where due_at_ms > :now_ms + :longest_wait_ms and (status = 'submitted' or not exists (select 1 from pauses p where p.account in ('', orders.account)))
    order by due_at_ms desc limit :most
)
limit :most
