select e.order_id, e.account, e.seq, e.status, e.attempt, e.at_ms, e.at_ms - o.created_at_ms as elapsed_ms, e.data
from order_events e
join orders o on o.order_id = e.order_id
where e.order_id = ? and e.seq > ?
order by e.seq
