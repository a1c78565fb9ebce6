update api_keys set revoked_at_ms = :now_ms where key_id = :key_id and revoked_at_ms is null
