with created as (
    insert into api_keys (key_id, digest, account, scopes, label, created_at_ms, expires_at_ms)
    values ($1, $2, $3, $4, $5, $6, $7)
    returning key_id
)
insert into audit (key_id, address, action, subject, details)
select $8, $9, 'key.create', key_id::text, $10 from created
