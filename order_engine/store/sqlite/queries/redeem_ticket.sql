delete from tickets where digest = ? returning key_id, account, scopes, expires_at_ms
