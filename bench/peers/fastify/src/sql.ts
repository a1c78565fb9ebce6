/** All statements. One order or event each, and the same over arrays for the group commit. */

export const SCHEMA = `
create table if not exists orders (
    order_id uuid primary key,
    type text not null,
    token_in text not null,
    token_out text not null,
    amount_in double precision not null,
    slippage_bps integer not null,
    status text not null,
    seq integer not null,
    venue text,
    amount_out double precision,
    tx_hash text,
    error text,
    created_at_ms bigint not null,
    updated_at_ms bigint not null
);
create table if not exists order_events (
    order_id uuid not null,
    seq integer not null,
    status text not null,
    data jsonb not null,
    at_ms bigint not null,
    primary key (order_id, seq)
)`;

export const ACCEPT = `
with stored as (
    insert into orders (order_id, type, token_in, token_out, amount_in, slippage_bps, status, seq,
                        created_at_ms, updated_at_ms)
    values ($1, $2, $3, $4, $5, $6, 'pending', 1, $7, $7)
    returning order_id, created_at_ms
)
insert into order_events (order_id, seq, status, data, at_ms)
select order_id, 1, 'pending', '{}', created_at_ms from stored`;

export const ADVANCE = `
with changed as (
    update orders
    set status = $2, seq = seq + 1, updated_at_ms = $3,
        venue = coalesce($4, venue), amount_out = coalesce($5, amount_out),
        tx_hash = coalesce($6, tx_hash), error = $7
    where order_id = $1 and status not in ('confirmed', 'failed', 'cancelled')
    returning order_id, seq, status, updated_at_ms
)
insert into order_events (order_id, seq, status, data, at_ms)
select order_id, seq, status, $8::jsonb, updated_at_ms from changed
returning order_id, seq`;

export const INSERT_ORDER = `
insert into orders (order_id, type, token_in, token_out, amount_in, slippage_bps, status, seq,
                    created_at_ms, updated_at_ms)
values ($1, $2, $3, $4, $5, $6, 'pending', 1, $7, $7)`;

export const UPDATE_ORDER = `
update orders
set status = $2, seq = seq + 1, updated_at_ms = $3,
    venue = coalesce($4, venue), amount_out = coalesce($5, amount_out),
    tx_hash = coalesce($6, tx_hash), error = $7
where order_id = $1 and status not in ('confirmed', 'failed', 'cancelled')
returning order_id, seq`;

export const INSERT_EVENT = `
insert into order_events (order_id, seq, status, data, at_ms) values ($1, $2, $3, $4, $5)`;

export const HISTORY = `
select order_id, seq, status, data, at_ms from order_events where order_id = any($1::uuid[]) order by order_id, seq`;

export const ACCEPT_MANY = `
with stored as (
    insert into orders (order_id, type, token_in, token_out, amount_in, slippage_bps, created_at_ms,
                        updated_at_ms, status, seq)
    select order_id, type, token_in, token_out, amount_in, slippage_bps, created_at_ms, created_at_ms, 'pending', 1
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::double precision[], $6::integer[], $7::bigint[])
        as input (order_id, type, token_in, token_out, amount_in, slippage_bps, created_at_ms)
    returning order_id, created_at_ms
)
insert into order_events (order_id, seq, status, data, at_ms)
select order_id, 1, 'pending', '{}', created_at_ms from stored`;

export const ADVANCE_MANY = `
with changed as (
    update orders
    set status = input.status, seq = orders.seq + 1, updated_at_ms = input.at_ms,
        venue = coalesce(input.venue, orders.venue), amount_out = coalesce(input.amount_out, orders.amount_out),
        tx_hash = coalesce(input.tx_hash, orders.tx_hash), error = input.error
    from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::double precision[], $6::text[], $7::text[],
                $8::text[])
        as input (order_id, status, at_ms, venue, amount_out, tx_hash, error, data)
    where orders.order_id = input.order_id and orders.status not in ('confirmed', 'failed', 'cancelled')
    returning orders.order_id, orders.seq, input.status, input.data, input.at_ms
)
insert into order_events (order_id, seq, status, data, at_ms)
select order_id, seq, status, data::jsonb, at_ms from changed
returning order_id, seq`;
