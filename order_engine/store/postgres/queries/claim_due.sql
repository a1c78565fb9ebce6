-- Lapsed leases first, so that a backlog does not delay a dead worker's orders; then due orders.
-- A lease that ends more than $5 ms from now, or a due time more than $6 ms from now, was given before the
-- clock was set back: it counts as over. Poison orders (claimed $4 times without an event, or $7
-- times in doubt) are for claim_poison. While a pause is on, only signed orders of its account are claimed.
with lapsed as (
    select order_id
    from orders
    where lease_until_ms <= (select now_ms())
        and claims < case when status = 'submitted' then $7::integer else $4::integer end
        and (status = 'submitted' or not (select exists (select from pauses))
            or not exists (select from pauses p where p.account in ('', orders.account)))
    order by lease_until_ms
    limit $2
    for update skip locked
),
set_back as (
    select order_id
    from orders
    where lease_until_ms > (select now_ms()) + $5::bigint
        and claims < case when status = 'submitted' then $7::integer else $4::integer end
        and (status = 'submitted' or not (select exists (select from pauses))
            or not exists (select from pauses p where p.account in ('', orders.account)))
    order by lease_until_ms desc
    limit $2 - (select count(*) from lapsed)
    for update skip locked
),
due as (
    select order_id
    from orders
    where due_at_ms <= (select now_ms())
        and (status = 'submitted' or not (select exists (select from pauses))
            or not exists (select from pauses p where p.account in ('', orders.account)))
    order by due_at_ms
    limit $2 - (select count(*) from lapsed) - (select count(*) from set_back)
    for update skip locked
),
due_set_back as (
    select order_id
    from orders
    where due_at_ms > (select now_ms()) + $6::bigint
        and (status = 'submitted' or not (select exists (select from pauses))
            or not exists (select from pauses p where p.account in ('', orders.account)))
    order by due_at_ms desc
    limit $2 - (select count(*) from lapsed) - (select count(*) from set_back) - (select count(*) from due)
    for update skip locked
)
update orders o
set worker = $1, fence = o.fence + 1, claims = o.claims + 1, due_at_ms = null, lease_until_ms = now_ms() + $3
where o.order_id = any(array(
    select order_id from lapsed union all select order_id from set_back
    union all select order_id from due union all select order_id from due_set_back))
returning o.*
