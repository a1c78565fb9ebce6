-- A row where an order's last event is not there: at the commit its absence would fail the whole batch.
select 1
from json_each(?) moved
join orders o on o.order_id = moved.value
where not exists (select 1 from order_events e where e.order_id = o.order_id and e.seq = o.seq)
limit 1
