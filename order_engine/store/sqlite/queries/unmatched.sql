-- A row if an order's last event is missing, because that would make the whole batch fail at the commit.
select 1
from json_each(?) moved
join orders o on o.order_id = moved.value
where not exists (select 1 from order_events e where e.order_id = o.order_id and e.seq = o.seq)
limit 1
