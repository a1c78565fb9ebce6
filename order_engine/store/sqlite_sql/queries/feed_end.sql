select coalesce(max(seq), 0) as position from sqlite_sequence where name = 'order_events'
