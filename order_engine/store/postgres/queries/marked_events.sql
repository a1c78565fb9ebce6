-- The events of an account in a transaction, and before which time an event may have been deleted.
select r.deleted_before_ms, e.order_id, e.seq, e.at_ms
from retention r
left join order_events e on e.account = $1 and e.xid = $2::text::xid8
