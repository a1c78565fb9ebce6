-- API keys, tickets, pauses and the audit log.

create table api_keys (
    key_id uuid primary key,
    -- SHA-256 of the key's text, which is not stored.
    digest bytea not null unique,
    account text not null,
    -- Separated by commas.
    scopes text not null,
    label text not null,
    created_at_ms bigint not null,
    expires_at_ms bigint,
    revoked_at_ms bigint,
    last_used_at_ms bigint
);

create trigger api_keys_kept before delete or truncate on api_keys
    for each statement execute function refuse('a key is revoked and kept');
create trigger api_keys_stay before update of key_id, digest, account, scopes, label, created_at_ms, expires_at_ms
    on api_keys
    for each row execute function refuse('a key stays as it was made');
create trigger api_keys_revoked_once before update on api_keys
    for each row
    when (old.revoked_at_ms is not null and new.revoked_at_ms is distinct from old.revoked_at_ms)
    execute function refuse('a revoked key stays revoked');

create table tickets (
    digest bytea primary key,
    key_id uuid,
    account text not null,
    scopes text not null,
    expires_at_ms bigint not null
);

-- A pause of one account; the empty account stands for all.
create table pauses (
    account text primary key,
    reason text not null,
    since_ms bigint not null
);

create table audit (
    number bigint generated always as identity primary key,
    at_ms bigint not null default now_ms(),
    key_id text,
    address text not null,
    action text not null,
    subject text not null,
    -- A JSON object.
    details text not null
);

create trigger audit_written_once before update or delete or truncate on audit
    for each statement execute function refuse('the audit log never changes');

-- While a pause is on, no order of its account is accepted or signed. The lock orders the two: a pause waits for the
-- statements that began before it, and later ones wait for the pause. The query after the lock sees every pause that was
-- committed, because each query of a volatile function has a snapshot of its own.
create function lock_for_pauses() returns boolean
    language plpgsql volatile
as $$
begin
    perform pg_advisory_xact_lock_shared(hashtext('order_engine.pauses'));
    return exists (select from pauses);
end
$$;

create function check_accepted_is_not_paused() returns trigger
    language plpgsql
as $$
declare
    found_reason text;
begin
    if lock_for_pauses() then
        select p.reason into found_reason
        from new_orders n join pauses p on p.account in ('', n.account)
        limit 1;
        if found then
            raise exception 'accepting is paused'
                using errcode = 'check_violation', constraint = 'orders_not_paused', detail = found_reason;
        end if;
    end if;
    return null;
end
$$;

create trigger orders_not_paused after insert on orders
    referencing new table as new_orders
    for each statement execute function check_accepted_is_not_paused();

create function check_signed_is_not_paused() returns trigger
    language plpgsql
as $$
declare
    found_reason text;
begin
    if lock_for_pauses() then
        select p.reason into found_reason
        from new_attempts n join orders o using (order_id) join pauses p on p.account in ('', o.account)
        limit 1;
        if found then
            raise exception 'signing is paused'
                using errcode = 'check_violation', constraint = 'attempts_not_paused', detail = found_reason;
        end if;
    end if;
    return null;
end
$$;

create trigger attempts_not_paused after insert on attempts
    referencing new table as new_attempts
    for each statement execute function check_signed_is_not_paused();
