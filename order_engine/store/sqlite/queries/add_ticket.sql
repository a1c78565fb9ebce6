insert into tickets (digest, key_id, account, scopes, expires_at_ms) values (?, ?, ?, ?, ?)
