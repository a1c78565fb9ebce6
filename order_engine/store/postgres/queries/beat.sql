with gone as (
    delete from processes where seen_at_ms < (select now_ms()) - 3600000 and process_name <> $1
)
insert into processes (process_name, heartbeat, seen_at_ms)
values ($1, $2, now_ms())
on conflict (process_name) do update set heartbeat = excluded.heartbeat, seen_at_ms = excluded.seen_at_ms
