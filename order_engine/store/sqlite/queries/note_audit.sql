insert into audit (at_ms, key_id, address, action, subject, details) values (?, ?, ?, ?, ?, ?)
