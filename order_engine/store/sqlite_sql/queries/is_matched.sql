-- One row where the order's last event is there: at the commit its absence would fail the whole batch.
select 1 from orders o join order_events e on e.order_id = o.order_id and e.seq = o.seq where o.order_id = ?
