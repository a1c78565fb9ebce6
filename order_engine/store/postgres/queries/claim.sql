-- Claims announced orders that no worker holds: a new one at once, any other when it is due. While a pause is on, only
-- signed orders of its account are claimed, for their proof.
with wanted as (
    select order_id
    from orders
    where order_id = any($2::uuid[])
        and due_at_ms is not null
        and claims < $4
        and (status = 'pending' or due_at_ms <= (select now_ms()))
        and (status = 'submitted' or not (select exists (select from pauses))
            or not exists (select from pauses p where p.account in ('', orders.account)))
    for update skip locked
)
update orders o
set worker = $1, fence = o.fence + 1, claims = o.claims + 1, due_at_ms = null, lease_until_ms = now_ms() + $3
where o.order_id = any(array(select order_id from wanted))
returning o.*
