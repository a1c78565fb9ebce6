-- Waits until no statement can accept or sign without seeing the pause.
with locked as materialized (
    select pg_advisory_xact_lock(hashtext('order_engine.pauses'))
),
paused as (
    insert into pauses (account, reason, since_ms)
    select $1, $2, now_ms() from locked
    on conflict (account) do update set reason = excluded.reason
)
insert into audit (key_id, address, action, subject, details) values ($3, $4, 'pause', $1, $5)
