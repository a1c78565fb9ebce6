insert into order_events (order_id, account, seq, status, attempt, at_ms, data) values (?, ?, ?, ?, ?, ?, ?)
