-- API keys, tickets, pauses and the audit log.

create table api_keys (
    key_id text not null primary key,
    -- SHA-256 of the key's text, which is not stored.
    digest blob not null unique,
    account text not null,
    -- Separated by commas.
    scopes text not null,
    label text not null,
    created_at_ms integer not null,
    expires_at_ms integer,
    revoked_at_ms integer,
    last_used_at_ms integer
);

create trigger api_keys_kept before delete on api_keys
begin
    select raise(abort, 'api_keys_kept: a key is revoked and kept');
end;
create trigger api_keys_stay before update of key_id, digest, account, scopes, label, created_at_ms, expires_at_ms
    on api_keys
begin
    select raise(abort, 'api_keys_stay: a key stays as it was made');
end;
create trigger api_keys_revoked_once before update on api_keys
when old.revoked_at_ms is not null and new.revoked_at_ms is not old.revoked_at_ms
begin
    select raise(abort, 'api_keys_revoked_once: a revoked key stays revoked');
end;

create table tickets (
    digest blob not null primary key,
    key_id text,
    account text not null,
    scopes text not null,
    expires_at_ms integer not null
);

-- A pause of one account; the empty account stands for all.
create table pauses (
    account text not null primary key,
    reason text not null,
    since_ms integer not null
);

create table audit (
    number integer primary key autoincrement,
    at_ms integer not null,
    key_id text,
    address text not null,
    action text not null,
    subject text not null,
    -- A JSON object.
    details text not null
);

create trigger audit_never_changes before update on audit
begin
    select raise(abort, 'audit_written_once: the audit log never changes');
end;
create trigger audit_never_goes before delete on audit
begin
    select raise(abort, 'audit_written_once: the audit log never changes');
end;

create trigger orders_not_paused before insert on orders
when exists (select 1 from pauses p where p.account in ('', new.account))
begin
    select raise(abort, 'orders_not_paused: accepting is paused');
end;
create trigger attempts_not_paused before insert on attempts
when exists (
    select 1 from orders o join pauses p on p.account in ('', o.account) where o.order_id = new.order_id)
begin
    select raise(abort, 'attempts_not_paused: signing is paused');
end;
