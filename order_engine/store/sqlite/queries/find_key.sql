select key_id, account, scopes, label, created_at_ms, expires_at_ms, revoked_at_ms, last_used_at_ms
from api_keys
where digest = ?
