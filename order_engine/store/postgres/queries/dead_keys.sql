select key_id from api_keys
where key_id = any($1::uuid[]) and (revoked_at_ms is not null or expires_at_ms <= now_ms())
