-- The histories that many readers wait for, each after its own cursor, in one answer.
select e.order_id, e.seq, e.status, e.attempt, e.at_ms, e.at_ms - o.created_at_ms as elapsed_ms, e.data
from unnest($1::uuid[], $2::integer[]) as wanted (order_id, after)
join orders o on o.order_id = wanted.order_id
join order_events e on e.order_id = wanted.order_id and e.seq > wanted.after
order by e.order_id, e.seq
