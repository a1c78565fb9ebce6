insert into pauses (account, reason, since_ms) values (?, ?, ?)
on conflict (account) do update set reason = excluded.reason
