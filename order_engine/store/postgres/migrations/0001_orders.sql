-- Orders, their history, their place in the queue and their signed transactions.
-- One row of `orders` is also the queue entry, so the two cannot differ.

-- Leases and due times use this clock alone, never a worker's.
create function now_ms() returns bigint
    language sql volatile
    return (extract(epoch from clock_timestamp()) * 1000)::bigint;

create table orders (
    order_id uuid primary key,
    account text not null,
    idempotency_key text,
    request_digest text,
    client_order_id text,
    token_in text not null,
    token_in_mint text not null,
    token_in_decimals smallint not null,
    token_out text not null,
    token_out_mint text not null,
    token_out_decimals smallint not null,
    amount_in bigint not null check (amount_in > 0),
    slippage_bps smallint not null check (slippage_bps between 1 and 1000),
    metadata text,
    created_at_ms bigint not null,
    -- the order's state after its last event
    status text not null,
    seq integer not null check (seq >= 1),
    attempt integer not null check (attempt >= 0),
    updated_at_ms bigint not null,
    venue text,
    quotes text not null,
    min_amount_out bigint,
    amount_out bigint,
    tx_signature text,
    reason_code text,
    reason_message text,
    -- the queue: an order that is not terminal either waits (due) or is held (lease)
    worker text,
    fence bigint not null default 0,
    claims integer not null default 0,
    due_at_ms bigint,
    lease_until_ms bigint,
    -- Unique while the order lives. Where it does not change, an update stays in the page (HOT).
    live_client_order_id text generated always as (
        case when status in ('confirmed', 'failed', 'cancelled') then null else client_order_id end) stored,
    constraint orders_one_live_per_client_order_id unique (live_client_order_id, account),
    constraint orders_one_per_idempotency_key unique (account, idempotency_key),
    constraint orders_key_has_digest check ((idempotency_key is null) = (request_digest is null)),
    constraint orders_status_known check (status in (
        'pending', 'routing', 'building', 'submitted', 'confirmed', 'retrying', 'failed', 'cancelled')),
    constraint orders_wait_or_are_held check (
        num_nonnulls(due_at_ms, lease_until_ms)
            = case when status in ('confirmed', 'failed', 'cancelled') then 0 else 1 end),
    constraint orders_held_by_a_worker check ((worker is null) = (lease_until_ms is null)),
    constraint orders_confirmed_gave_something check (status <> 'confirmed' or coalesce(amount_out, 0) > 0),
    constraint orders_end_with_a_reason check (
        status not in ('failed', 'cancelled') or reason_code is not null)
) with (
    -- Half of an order's updates touch no index; room in the page keeps them there (HOT).
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000
);

create index orders_due on orders (due_at_ms) where due_at_ms is not null;
create index orders_leased on orders (lease_until_ms) where lease_until_ms is not null;
create index orders_client_order_id on orders (account, client_order_id, order_id)
    where client_order_id is not null;

create table order_events (
    order_id uuid not null,
    account text not null,
    seq integer not null,
    status text not null,
    attempt integer not null,
    at_ms bigint not null,
    data text not null,
    -- The transaction that wrote it. A cursor names the committed transactions, and so the events that its reader has
    -- seen.
    xid xid8 not null default pg_current_xact_id(),
    primary key (order_id, seq)
);

-- Each account reads a log of its own.
create index order_events_account on order_events (account, xid);

-- Events before this time may have been deleted, each with its order.
create table retention (
    one integer primary key default 1 check (one = 1),
    deleted_before_ms bigint not null default 0
);
insert into retention default values;

-- The cluster that every attempt here was signed for: answers of another cluster prove nothing about them.
create table cluster (
    one integer primary key check (one = 1),
    genesis_hash text not null,
    -- Set by the first signed attempt; from then on the cluster never changes.
    is_pinned boolean not null default false
);

-- The engine's identity: on a shared Redis, its keys and channels contain the id, and the secret proves its messages.
-- Made here, once; gen_random_uuid is cryptographically random.
create table engine_identity (
    one integer primary key default 1 check (one = 1),
    engine_id text not null default gen_random_uuid()::text,
    bus_secret bytea not null
        default decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')
);
insert into engine_identity default values;

create table attempts (
    order_id uuid not null,
    attempt integer not null check (attempt >= 1),
    signature text not null unique,
    raw bytea not null,
    -- The key that signed it, base58: its balance tells how much the swap gave.
    owner text not null,
    last_valid_block_height bigint not null check (last_valid_block_height > 0),
    -- The finalized slot and height at the signing: it cannot have landed before, and later heights are checked against
    -- them.
    signed_slot bigint not null check (signed_slot >= 0),
    signed_block_height bigint not null check (signed_block_height >= 0),
    -- The slot of its blockhash; the blocks in which it can land are counted from there.
    blockhash_slot bigint not null check (blockhash_slot >= 0),
    signed_at_ms bigint not null,
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
    process_name text primary key,
    -- JSON; see ports/health.py.
    heartbeat text not null,
    seen_at_ms bigint not null
);

-- The rows that the engine's statements take as arrays.
create type new_order as (
    order_id uuid,
    account text,
    idempotency_key text,
    request_digest text,
    client_order_id text,
    token_in text,
    token_in_mint text,
    token_in_decimals smallint,
    token_out text,
    token_out_mint text,
    token_out_decimals smallint,
    amount_in bigint,
    slippage_bps smallint,
    metadata text,
    created_at_ms bigint,
    first_event text
);
create type order_move as (
    order_id uuid,
    held_fence bigint,
    expected_seq integer,
    status text,
    seq integer,
    attempt integer,
    updated_at_ms bigint,
    venue text,
    quotes text,
    min_amount_out bigint,
    amount_out bigint,
    tx_signature text,
    reason_code text,
    reason_message text,
    due_in_ms bigint
);
create type new_event as (
    order_id uuid,
    account text,
    seq integer,
    status text,
    attempt integer,
    at_ms bigint,
    data text
);
create type signed_attempt as (
    order_id uuid,
    attempt integer,
    signature text,
    raw bytea,
    owner text,
    last_valid_block_height bigint,
    signed_slot bigint,
    signed_block_height bigint,
    blockhash_slot bigint,
    signed_at_ms bigint,
    genesis_hash text
);
create type proven_attempt as (
    order_id uuid,
    attempt integer,
    outcome text,
    evidence text
);

-- The database refuses these changes from every client. The checks run once per statement, not once per row, and with
-- index look-ups only. A cached plan with a hash join would read whole tables for every batch, so the engine's sessions
-- disable such plans. (Disabling them here too would set and reset the settings at every call.) A plan that was made
-- while a table was nearly empty could read a whole index for each row: `lateral (... limit 1)` allows the look-up
-- only.

create function check_new_events() returns trigger
    language plpgsql
as $$
declare
    bad record;
begin
    select * into bad
    from (
        select n.order_id, n.seq, n.attempt, p.status as before, n.status as after, case
            when case
                when n.seq = 1 then n.status = 'pending' and n.attempt = 0
                else (p.status, n.status) in (
                    ('pending', 'routing'), ('pending', 'failed'), ('pending', 'cancelled'),
                    ('routing', 'building'), ('routing', 'retrying'), ('routing', 'failed'), ('routing', 'cancelled'),
                    ('building', 'submitted'), ('building', 'retrying'), ('building', 'failed'),
                    ('building', 'cancelled'),
                    ('submitted', 'confirmed'), ('submitted', 'retrying'), ('submitted', 'failed'),
                    ('retrying', 'routing'), ('retrying', 'failed'), ('retrying', 'cancelled')
                ) and n.attempt = p.attempt + case n.status when 'routing' then 1 else 0 end
            end is not true then 'order_events_lawful'
            -- This also replaces a foreign key, which would look up every row on its own.
            when (o.account = n.account
                and (o.seq > n.seq or (o.seq = n.seq and o.status = n.status and o.attempt = n.attempt))) is not true
                then 'order_events_match_order'
            -- An attempt is signed before its order is submitted, and proven before the order's next status.
            when 'submitted' in (p.status, n.status) and (a.signature = o.tx_signature and case n.status
                when 'submitted' then a.outcome is null
                when 'confirmed' then a.outcome = 'landed'
                else a.outcome in ('reverted', 'expired')
            end) is not true then 'order_events_match_attempts'
        end as violated
        from new_events n
        left join lateral (
            select * from order_events where order_id = n.order_id and seq = n.seq - 1 limit 1
        ) p on true
        left join lateral (select * from orders where order_id = n.order_id limit 1) o on true
        left join lateral (
            -- If no attempt is needed, the number is null and nothing is looked up.
            select * from attempts
            where order_id = n.order_id and attempt = case when 'submitted' in (p.status, n.status) then n.attempt end
            limit 1
        ) a on true
    ) checked
    where violated is not null
    limit 1;
    if found then
        raise exception 'order % may not go from % to % with seq % and attempt %',
            bad.order_id, bad.before, bad.after, bad.seq, bad.attempt
            using errcode = 'check_violation', constraint = bad.violated;
    end if;
    return null;
end
$$;

create trigger order_events_lawful after insert on order_events
    referencing new table as new_events
    for each statement execute function check_new_events();

create function check_orders_match_events() returns trigger
    language plpgsql
as $$
declare
    bad record;
begin
    select n.order_id, n.seq, n.status, n.attempt into bad
    from new_orders n
    left join lateral (
        select * from order_events where order_id = n.order_id and seq = n.seq limit 1
    ) e on true
    where (e.status = n.status and e.attempt = n.attempt) is not true
    limit 1;
    if found then
        raise exception 'order % is % at seq % in attempt %, and its history is not',
            bad.order_id, bad.status, bad.seq, bad.attempt
            using errcode = 'check_violation', constraint = 'orders_match_events';
    end if;
    return null;
end
$$;

create trigger orders_match_events_on_insert after insert on orders
    referencing new table as new_orders
    for each statement execute function check_orders_match_events();
create trigger orders_match_events_on_update after update on orders
    referencing new table as new_orders
    for each statement execute function check_orders_match_events();

-- An attempt is live exactly while its order is submitted with its number: the statement that moves the order into that
-- status also signs the attempt, and the statement that moves it on also proves the attempt. The first check also
-- replaces a foreign key, which would look up every row on its own.

create function check_signed_attempts() returns trigger
    language plpgsql
as $$
declare
    bad record;
begin
    select n.order_id, n.attempt into bad
    from new_attempts n
    left join lateral (select * from orders where order_id = n.order_id limit 1) o on true
    where (n.outcome is null and o.status = 'submitted' and o.attempt = n.attempt) is not true
    limit 1;
    if found then
        raise exception 'attempt % is signed, and order % is not submitted with it', bad.attempt, bad.order_id
            using errcode = 'check_violation', constraint = 'attempts_match_order';
    end if;
    -- The first signing and a transaction that stores another cluster wait for each other here.
    update cluster set is_pinned = true where not is_pinned and exists (select from new_attempts);
    select n.order_id, n.genesis_hash into bad
    from new_attempts n
    where n.genesis_hash is distinct from (select genesis_hash from cluster)
    limit 1;
    if found then
        raise exception 'order % is signed for cluster %, and the orders here are of another', bad.order_id, bad.genesis_hash
            using errcode = 'check_violation', constraint = 'attempts_of_one_cluster';
    end if;
    return null;
end
$$;

create trigger attempts_match_order_on_insert after insert on attempts
    referencing new table as new_attempts
    for each statement execute function check_signed_attempts();

create function check_proven_attempts() returns trigger
    language plpgsql
as $$
declare
    bad record;
begin
    select n.order_id, n.attempt into bad
    from new_attempts n
    cross join lateral (select * from orders where order_id = n.order_id limit 1) o
    where o.status = 'submitted' and o.attempt = n.attempt
    limit 1;
    if found then
        raise exception 'attempt % has an outcome, and order % still waits for it', bad.attempt, bad.order_id
            using errcode = 'check_violation', constraint = 'attempts_match_order';
    end if;
    return null;
end
$$;

create trigger attempts_match_order_on_update after update on attempts
    referencing new table as new_attempts
    for each statement execute function check_proven_attempts();

create function refuse() returns trigger
    language plpgsql
as $$
begin
    -- Only delete_ended may delete orders that ended long ago; it sets this while it runs.
    if tg_op = 'DELETE' and current_setting('order_engine.is_deleting_ended', true) = 'on' then
        return null;
    end if;
    -- Renumbering restored events changes no fact either.
    if tg_op = 'UPDATE' and current_setting('order_engine.is_numbering_restored', true) = 'on' then
        return null;
    end if;
    raise exception '% on % is refused: %', tg_op, tg_table_name, tg_argv[0]
        using errcode = 'check_violation', constraint = tg_name;
end
$$;

create trigger order_events_written_once before update or delete or truncate on order_events
    for each statement execute function refuse('a written event never changes');
create trigger orders_kept before delete or truncate on orders
    for each statement execute function refuse('an accepted order is kept');
create trigger attempts_kept before delete or truncate on attempts
    for each statement execute function refuse('a signed transaction is kept');

create trigger cluster_kept before delete or truncate on cluster
    for each statement execute function refuse('what was signed is of one cluster');
create trigger cluster_pinned before update on cluster
    for each row
    when (old.is_pinned)
    execute function refuse('what was signed is of one cluster');

create trigger engine_identity_kept before update or delete or truncate on engine_identity
    for each statement execute function refuse('an engine stays who it is');

-- PostgreSQL reads the condition of a trigger again for each statement that may fire it, so the conditions are short,
-- and long ones belong to columns that no statement of the engine sets.
create trigger orders_only_move_on before update on orders
    for each row
    when (old.status in ('confirmed', 'failed', 'cancelled') or new.fence < old.fence or new.seq < old.seq)
    execute function refuse('an order only moves on');

create trigger orders_change_with_an_event before update of status, attempt, updated_at_ms, venue, quotes,
    min_amount_out, amount_out, tx_signature, reason_code, reason_message on orders
    for each row
    when (new.seq = old.seq)
    execute function refuse('an order changes with its next event only');

create trigger orders_keep_the_request before update of order_id, account, idempotency_key, request_digest,
    client_order_id, token_in, token_in_mint, token_in_decimals, token_out, token_out_mint, token_out_decimals,
    amount_in, slippage_bps, metadata, created_at_ms on orders
    for each row
    execute function refuse('the request of an order stays as it was accepted');

create trigger attempts_decided_once before update of outcome, evidence on attempts
    for each row
    when (old.outcome is not null or new.outcome is null)
    execute function refuse('an outcome is written once');

create trigger attempts_keep_the_transaction before update of order_id, attempt, signature, raw, owner,
    last_valid_block_height, signed_slot, signed_block_height, blockhash_slot, signed_at_ms, genesis_hash on attempts
    for each row
    execute function refuse('a signed transaction never changes');

-- Retention: deletes the oldest orders that ended longer ago than this, with their events and attempts. An id begins
-- with its creation time (UUIDv7), so those that are old enough come first.
create function delete_ended(older_than_ms bigint, most integer) returns integer
    language plpgsql
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    before_ms bigint := now_ms() - older_than_ms;
    ended uuid[];
begin
    -- Not in a `set` clause of the function, where only a superuser may use a custom setting.
    perform set_config('order_engine.is_deleting_ended', 'on', true);
    select array_agg(found.order_id) into ended
    from (
        select order_id
        from orders
        where order_id < (lpad(to_hex(before_ms), 12, '0') || repeat('0', 20))::uuid
            and status in ('confirmed', 'failed', 'cancelled')
            and updated_at_ms < before_ms
        order by order_id
        limit most
        for update skip locked
    ) found;
    delete from attempts where order_id = any(ended);
    delete from order_events where order_id = any(ended);
    delete from orders where order_id = any(ended);
    update retention set deleted_before_ms = before_ms where ended is not null and deleted_before_ms < before_ms;
    perform set_config('order_engine.is_deleting_ended', '', true);
    return coalesce(cardinality(ended), 0);
end
$$;

-- Events from another server's dump have that server's transaction numbers, which are still in the future here and
-- would become new to a reader later. They get numbers of this server's transactions, a limited number of events in
-- each.
create function number_restored_events(most integer) returns integer
    language plpgsql
    set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    numbered integer;
begin
    perform set_config('order_engine.is_numbering_restored', 'on', true);
    update order_events e
    set xid = pg_current_xact_id()
    from (
        select order_id, seq from order_events
        where xid >= pg_snapshot_xmax(pg_current_snapshot())
        order by xid, order_id, seq
        limit most
    ) restored
    where e.order_id = restored.order_id and e.seq = restored.seq;
    get diagnostics numbered = row_count;
    perform set_config('order_engine.is_numbering_restored', '', true);
    return numbered;
end
$$;
