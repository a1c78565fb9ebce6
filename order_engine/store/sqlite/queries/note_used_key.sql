update api_keys set last_used_at_ms = max(coalesce(last_used_at_ms, 0), :at_ms) where key_id = :key_id
