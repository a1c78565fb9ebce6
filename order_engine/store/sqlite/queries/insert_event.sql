insert into order_events (order_id, seq, status, attempt, at_ms, data) values (?, ?, ?, ?, ?, ?)
