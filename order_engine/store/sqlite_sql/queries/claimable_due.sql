-- Lapsed leases first, so that a backlog does not hold up what a dead worker left; then what is due.
-- Suspects, claimed in vain :suspect_claims times, or 3 more if in doubt, are for claimable_suspect.
select order_id from (
    select order_id from orders
    where lease_until_ms <= :now_ms and claims < :suspect_claims + 3 * (status = 'submitted')
    order by lease_until_ms limit :most
)
union all
select order_id from (
    select order_id from orders where due_at_ms <= :now_ms order by due_at_ms limit :most
)
limit :most
