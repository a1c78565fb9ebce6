insert into processes (process_name, role, chain, seen_at_ms)
values (?1, ?2, ?3, ?4)
on conflict (process_name) do update set chain = excluded.chain, seen_at_ms = excluded.seen_at_ms
