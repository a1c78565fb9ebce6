-- Events of an account that a reader has not seen, in the order of their transactions. Each row, and the only row if
-- there are none, has the current snapshot and the last transaction in it that wrote an event of the account. $1 account, $2 the
-- snapshot that was seen, $3 the snapshot to read up to (null: the current one), $4 maximum
with place as materialized (
    select $2::text::pg_snapshot as seen, coalesce($3::text::pg_snapshot, pg_current_snapshot()) as until
)
select pg_current_snapshot()::text as now, newest.*,
    pg_snapshot_xmax(place.seen) > pg_snapshot_xmax(pg_current_snapshot()) as is_ahead,
    unseen.*
from place
left join (
    select xid as last_xid, order_id as last_order_id, seq as last_seq, at_ms as last_at_ms
    from order_events
    where account = $1
    order by xid desc
    limit 1
) newest on true
left join lateral (
    -- Only transactions that were open at the reader's last read, or that began later, can be new to it.
    (
        select e.order_id, e.account, e.seq, e.status, e.attempt, e.at_ms, e.at_ms - o.created_at_ms as elapsed_ms, e.data, e.xid
        from order_events e
        cross join lateral (select created_at_ms from orders where order_id = e.order_id limit 1) o
        where e.account = $1 and e.xid = any(array(select pg_snapshot_xip(place.seen)))
            and pg_visible_in_snapshot(e.xid, place.until)
        order by e.xid
        limit $4
    )
    union all
    (
        select e.order_id, e.account, e.seq, e.status, e.attempt, e.at_ms, e.at_ms - o.created_at_ms as elapsed_ms, e.data, e.xid
        from order_events e
        cross join lateral (select created_at_ms from orders where order_id = e.order_id limit 1) o
        where e.account = $1 and e.xid >= pg_snapshot_xmax(place.seen)
            and pg_visible_in_snapshot(e.xid, place.until)
        order by e.xid
        limit $4
    )
    order by xid, order_id, seq
    limit $4
) unseen on true
