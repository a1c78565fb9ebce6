insert into api_keys (key_id, digest, account, scopes, label, created_at_ms, expires_at_ms) values (?, ?, ?, ?, ?, ?, ?)
