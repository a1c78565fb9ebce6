-- Revokes a key, with its line in the audit log; a key that is revoked already stays as it is.
with revoked as (
    update api_keys set revoked_at_ms = now_ms()
    where key_id = $1 and revoked_at_ms is null
    returning key_id
)
insert into audit (key_id, address, action, subject, details)
select $2, $3, 'key.revoke', key_id::text, '{}' from revoked
