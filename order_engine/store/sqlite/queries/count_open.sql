select count(*) from orders where account = ? and (due_at_ms is not null or lease_until_ms is not null)
