-- Claims one poison order (claimed $3 times without an event, or $5 times in doubt); none while this worker
-- holds one. The wait grows with each claim, and is at least $4 ms once its worker died with it as a poison order. A
-- recorded event makes it a normal order again.
with poison as (
    select order_id
    from orders
    where lease_until_ms <= (select now_ms())
        and claims >= case when status = 'submitted' then $5::integer else $3::integer end
        and lease_until_ms <= (select now_ms()) - greatest(
            case when claims > $3 then $4::bigint else 0 end,
            least($7::bigint, $6::bigint * 2 ^ (claims - $3)))::bigint
        and (status = 'submitted' or not (select exists (select from pauses))
            or not exists (select from pauses p where p.account in ('', orders.account)))
        and not exists (
            select from orders held
            where held.lease_until_ms > (select now_ms())
                and held.worker = $1
                and held.claims > case when held.status = 'submitted' then $5::integer else $3::integer end
        )
    order by lease_until_ms
    limit 1
    for update skip locked
)
update orders o
set worker = $1, fence = o.fence + 1, claims = o.claims + 1, due_at_ms = null, lease_until_ms = now_ms() + $2
where o.order_id = (select order_id from poison)
returning o.*
