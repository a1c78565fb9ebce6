select r.deleted_before_ms, e.order_id, e.seq, e.at_ms
from retention r
left join order_events e on e.account = ? and e.position = ?
