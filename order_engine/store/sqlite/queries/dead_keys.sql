select key_id from api_keys
where key_id in (select value from json_each(:key_ids)) and (revoked_at_ms is not null or expires_at_ms <= :now_ms)
