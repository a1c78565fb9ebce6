-- The last number that an event got, and the newest event of the account that is still stored.
select coalesce((select seq from sqlite_sequence where name = 'order_events'), 0) as position,
    e.position as number, e.order_id, e.seq, e.at_ms
from (select 1)
left join (select position, order_id, seq, at_ms from order_events where account = ? order by position desc limit 1) e
