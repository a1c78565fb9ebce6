insert into processes (process_name, heartbeat, seen_at_ms)
values (?1, ?2, ?3)
on conflict (process_name) do update set heartbeat = excluded.heartbeat, seen_at_ms = excluded.seen_at_ms
