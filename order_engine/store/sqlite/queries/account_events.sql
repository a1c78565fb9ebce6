select e.order_id, e.account, e.seq, e.status, e.attempt, e.at_ms, e.at_ms - o.created_at_ms as elapsed_ms, e.data, e.position
from order_events e
join orders o on o.order_id = e.order_id
where e.position > :after and e.position <= :until and e.account = :account
order by e.position
limit :most
