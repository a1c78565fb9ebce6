insert into account_usage values (?, ?, ?, ?)
on conflict (account, day, mint) do update set amount = excluded.amount
