-- The events for many readers in one answer, each reader's after its own cursor.
select e.order_id, e.account, e.seq, e.status, e.attempt, e.at_ms, e.at_ms - o.created_at_ms as elapsed_ms, e.data
from unnest($1::uuid[], $2::integer[]) as wanted (order_id, after)
cross join lateral (select created_at_ms from orders where order_id = wanted.order_id limit 1) o
cross join lateral (
    select * from order_events where order_id = wanted.order_id and seq > wanted.after order by seq offset 0
) e
order by e.order_id, e.seq
