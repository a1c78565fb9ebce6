-- Keeps a ticket, and forgets those that are too old.
with forgotten as (
    delete from tickets where expires_at_ms <= now_ms()
)
insert into tickets (digest, key_id, account, scopes, expires_at_ms) values ($1, $2, $3, $4, now_ms() + $5)
