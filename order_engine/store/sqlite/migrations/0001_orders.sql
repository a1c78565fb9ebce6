-- Orders, their history, their place in the queue and their signed transactions.
-- The same facts and the same refusals as in PostgreSQL, in SQLite's words.

create table orders (
    order_id text not null primary key,
    account text not null,
    idempotency_key text,
    request_digest text,
    client_order_id text,
    token_in text not null,
    token_in_mint text not null,
    token_in_decimals integer not null,
    token_out text not null,
    token_out_mint text not null,
    token_out_decimals integer not null,
    amount_in integer not null check (amount_in > 0 and typeof(amount_in) = 'integer'),
    slippage_bps integer not null check (slippage_bps between 1 and 1000),
    metadata text,
    created_at_ms integer not null,
    -- the order's state after its last event
    status text not null,
    seq integer not null check (seq >= 1),
    attempt integer not null check (attempt >= 0),
    updated_at_ms integer not null,
    venue text,
    quotes text not null,
    min_amount_out integer,
    amount_out integer,
    tx_signature text,
    reason_code text,
    reason_message text,
    -- the queue: an order that is not terminal either waits (due) or is held (lease)
    worker text,
    fence integer not null default 0,
    claims integer not null default 0,
    due_at_ms integer,
    lease_until_ms integer,
    constraint orders_one_per_idempotency_key unique (account, idempotency_key),
    constraint orders_key_has_digest check ((idempotency_key is null) = (request_digest is null)),
    constraint orders_status_known check (status in (
        'pending', 'routing', 'building', 'submitted', 'confirmed', 'retrying', 'failed', 'cancelled')),
    constraint orders_wait_or_are_held check (
        (due_at_ms is not null) + (lease_until_ms is not null)
            = case when status in ('confirmed', 'failed', 'cancelled') then 0 else 1 end),
    constraint orders_held_by_a_worker check ((worker is null) = (lease_until_ms is null)),
    constraint orders_confirmed_gave_something check (status <> 'confirmed' or coalesce(amount_out, 0) > 0),
    constraint orders_end_with_a_reason check (
        status not in ('failed', 'cancelled') or reason_code is not null),
    -- At the commit the order's last event exists; the event's trigger checks that the two agree.
    constraint orders_match_events foreign key (order_id, seq)
        references order_events (order_id, seq) deferrable initially deferred
);

create index orders_due on orders (due_at_ms) where due_at_ms is not null;
create index orders_leased on orders (lease_until_ms) where lease_until_ms is not null;
create index orders_client_order_id on orders (account, client_order_id, order_id)
    where client_order_id is not null;

create unique index orders_one_live_per_client_order_id on orders (account, client_order_id)
    where client_order_id is not null and status not in ('confirmed', 'failed', 'cancelled');

create table order_events (
    order_id text not null,
    account text not null,
    seq integer not null,
    status text not null,
    attempt integer not null,
    at_ms integer not null,
    data text not null,
    -- The order of the commits; a number is never used twice.
    position integer primary key autoincrement,
    constraint order_events_in_order unique (order_id, seq)
);

-- Each account reads a log of its own.
create index order_events_account on order_events (account, position);

-- The cluster that every attempt here was signed for: answers of another cluster prove nothing about them.
create table cluster (
    one integer primary key check (one = 1),
    genesis_hash text not null,
    -- Set by the first signed attempt; from then on the cluster never changes.
    is_pinned integer not null default 0 check (is_pinned in (0, 1))
);

-- The engine's identity: on a shared Redis, its keys and channels contain the id, and the secret proves its messages.
-- Made here, once; the id has the form of a random UUID.
create table engine_identity (
    one integer primary key default 1 check (one = 1),
    engine_id text not null,
    bus_secret blob not null
);
insert into engine_identity (engine_id, bus_secret)
select
    substr(digits, 1, 8) || '-' || substr(digits, 9, 4) || '-4' || substr(digits, 14, 3) || '-a'
        || substr(digits, 18, 3) || '-' || substr(digits, 21, 12),
    randomblob(32)
from (select lower(hex(randomblob(16))) as digits);

create table attempts (
    order_id text not null references orders (order_id),
    attempt integer not null check (attempt >= 1),
    signature text not null unique,
    raw blob not null,
    -- The key that signed it, base58: its balance tells how much the swap gave.
    owner text not null,
    last_valid_block_height integer not null check (last_valid_block_height > 0),
    -- The finalized slot and height at the signing: it cannot have landed before, and later heights are checked against
    -- them.
    signed_slot integer not null check (signed_slot >= 0),
    signed_block_height integer not null check (signed_block_height >= 0),
    -- The slot of its blockhash; the blocks in which it can land are counted from there.
    blockhash_slot integer not null check (blockhash_slot >= 0),
    signed_at_ms integer not null,
    genesis_hash text not null,
    outcome text check (outcome in ('landed', 'reverted', 'expired')),
    evidence text,
    primary key (order_id, attempt),
    constraint attempts_outcome_has_evidence check ((outcome is null) = (evidence is null))
);

create unique index attempts_one_live on attempts (order_id) where outcome is null;
create unique index attempts_one_landed on attempts (order_id) where outcome = 'landed';

-- Heartbeats of the engine's processes: only the health report depends on them.
create table processes (
    process_name text not null primary key,
    -- JSON; see ports/health.py.
    heartbeat text not null,
    seen_at_ms integer not null
);

-- The database refuses these changes from every client. An order is moved first, then its attempt is signed or proven,
-- and its events are written last, so that the triggers on events can check both.

create trigger order_events_lawful before insert on order_events
when case
    when new.seq = 1 then (new.status, new.attempt) <> ('pending', 0)
    else not exists (
        select 1 from order_events p
        where p.order_id = new.order_id and p.seq = new.seq - 1
            and new.attempt = p.attempt + (new.status = 'routing')
            and (p.status, new.status) in (values
            ('pending', 'routing'), ('pending', 'failed'), ('pending', 'cancelled'),
            ('routing', 'building'), ('routing', 'retrying'), ('routing', 'failed'), ('routing', 'cancelled'),
            ('building', 'submitted'), ('building', 'retrying'), ('building', 'failed'), ('building', 'cancelled'),
            ('submitted', 'confirmed'), ('submitted', 'retrying'), ('submitted', 'failed'),
            ('retrying', 'routing'), ('retrying', 'failed'), ('retrying', 'cancelled')
        ))
end
begin
    select raise(abort, 'order_events_lawful: the order may not go there, or not with this seq');
end;

-- Orders that ended long ago may be deleted; the job that deletes them sets this, and unsets it before its commit.
create table retention (
    one integer primary key check (one = 1),
    is_deleting_ended integer not null check (is_deleting_ended in (0, 1)),
    -- Events before this time may have been deleted, each with its order.
    deleted_before_ms integer not null
);
insert into retention values (1, 0, 0);

create trigger order_events_never_change before update on order_events
begin
    select raise(abort, 'order_events_written_once: a written event never changes');
end;
create trigger order_events_never_go before delete on order_events
when not exists (select 1 from retention where is_deleting_ended)
begin
    select raise(abort, 'order_events_written_once: a written event never changes');
end;
create trigger orders_kept before delete on orders
when not exists (select 1 from retention where is_deleting_ended)
begin
    select raise(abort, 'orders_kept: an accepted order is kept');
end;
create trigger attempts_kept before delete on attempts
when not exists (select 1 from retention where is_deleting_ended)
begin
    select raise(abort, 'attempts_kept: a signed transaction is kept');
end;

create trigger orders_begin_pending before insert on orders
when new.seq <> 1 or new.status <> 'pending'
begin
    select raise(abort, 'orders_match_events: an order begins pending, with seq 1');
end;

-- `insert or replace` would delete the old row without running the triggers above.

create trigger orders_never_replaced before insert on orders
when exists (
    select 1 from orders o
    where o.order_id = new.order_id or (o.account, o.idempotency_key) = (new.account, new.idempotency_key))
begin
    select raise(abort, 'orders_kept: an accepted order is kept');
end;
create trigger order_events_never_replaced before insert on order_events
when exists (select 1 from order_events e where e.order_id = new.order_id and e.seq = new.seq)
begin
    select raise(abort, 'order_events_written_once: a written event never changes');
end;
create trigger attempts_never_replaced before insert on attempts
when exists (
    select 1 from attempts a
    where a.signature = new.signature
        or (a.order_id = new.order_id
            and (a.attempt = new.attempt or (a.outcome is new.outcome and coalesce(a.outcome, 'landed') = 'landed'))))
begin
    select raise(abort, 'attempts_kept: a signed transaction is kept, and one at a time is live');
end;

create trigger order_events_match_order before insert on order_events
when not exists (
    select 1 from orders o
    where o.order_id = new.order_id and o.account = new.account
        and (o.seq > new.seq or (o.seq, o.status, o.attempt) = (new.seq, new.status, new.attempt)))
begin
    select raise(abort, 'order_events_match_order: the event is ahead of its order, or of another attempt');
end;

-- An attempt is signed before its order is submitted, and proven before the order's next status.
create trigger order_events_match_attempts before insert on order_events
when 'submitted' in (
        new.status,
        (select p.status from order_events p where p.order_id = new.order_id and p.seq = new.seq - 1))
    and not exists (
        select 1 from orders o join attempts a on a.order_id = o.order_id and a.signature = o.tx_signature
        where o.order_id = new.order_id and a.attempt = new.attempt
            and case new.status
                when 'submitted' then a.outcome is null
                when 'confirmed' then a.outcome = 'landed'
                else a.outcome in ('reverted', 'expired')
            end)
begin
    select raise(abort, 'order_events_match_attempts: the attempt does not say so');
end;

-- An attempt is live exactly while its order is submitted with its number.
create trigger attempts_match_order_on_insert before insert on attempts
when new.outcome is not null
    or not exists (
        select 1 from orders o
        where (o.order_id, o.status, o.attempt) = (new.order_id, 'submitted', new.attempt))
begin
    select raise(abort, 'attempts_match_order: the order is not submitted with this attempt');
end;
create trigger attempts_match_order_on_update before update on attempts
when exists (
    select 1 from orders o
    where (o.order_id, o.status, o.attempt) = (new.order_id, 'submitted', new.attempt))
begin
    select raise(abort, 'attempts_match_order: the order still waits for its outcome');
end;

create trigger attempts_of_one_cluster before insert on attempts
when new.genesis_hash is not (select genesis_hash from cluster)
begin
    select raise(abort, 'attempts_of_one_cluster: the orders here are of another cluster');
end;
create trigger attempts_pin_the_cluster after insert on attempts
when exists (select 1 from cluster where not is_pinned)
begin
    update cluster set is_pinned = 1;
end;
create trigger cluster_kept before delete on cluster
begin
    select raise(abort, 'cluster_kept: what was signed is of one cluster');
end;
create trigger cluster_pinned before update on cluster
when old.is_pinned and (new.genesis_hash, new.is_pinned) is not (old.genesis_hash, old.is_pinned)
begin
    select raise(abort, 'cluster_pinned: what was signed is of one cluster');
end;

create trigger engine_identity_made_once before insert on engine_identity
begin
    select raise(abort, 'engine_identity_made_once: an engine stays who it is');
end;
create trigger engine_identity_kept before update on engine_identity
begin
    select raise(abort, 'engine_identity_kept: an engine stays who it is');
end;
create trigger engine_identity_stays before delete on engine_identity
begin
    select raise(abort, 'engine_identity_stays: an engine stays who it is');
end;

create trigger orders_only_move_on before update on orders
when old.status in ('confirmed', 'failed', 'cancelled') or new.fence < old.fence or new.seq < old.seq
begin
    select raise(abort, 'orders_only_move_on: an order only moves on');
end;

create trigger orders_change_with_an_event before update of status, attempt, updated_at_ms, venue, quotes,
    min_amount_out, amount_out, tx_signature, reason_code, reason_message on orders
when new.seq = old.seq
begin
    select raise(abort, 'orders_change_with_an_event: an order changes with its next event only');
end;

create trigger orders_keep_the_request before update of order_id, account, idempotency_key, request_digest,
    client_order_id, token_in, token_in_mint, token_in_decimals, token_out, token_out_mint, token_out_decimals,
    amount_in, slippage_bps, metadata, created_at_ms on orders
begin
    select raise(abort, 'orders_keep_the_request: the request of an order stays as it was accepted');
end;

create trigger attempts_decided_once before update of outcome, evidence on attempts
when old.outcome is not null or new.outcome is null
begin
    select raise(abort, 'attempts_decided_once: an outcome is written once');
end;

create trigger attempts_keep_the_transaction before update of order_id, attempt, signature, raw, owner,
    last_valid_block_height, signed_slot, signed_block_height, blockhash_slot, signed_at_ms, genesis_hash on attempts
begin
    select raise(abort, 'attempts_keep_the_transaction: a signed transaction never changes');
end;
