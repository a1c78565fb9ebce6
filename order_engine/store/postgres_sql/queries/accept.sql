-- Orders, their first events and their idempotency keys; returns the ids that were new.
with input as (
    select *
    from unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[],
        $6::text[], $7::text[], $8::smallint[], $9::text[], $10::text[], $11::smallint[],
        $12::bigint[], $13::smallint[], $14::text[], $15::bigint[]
    ) as t (
        order_id, account, idempotency_key, request_digest, client_order_id,
        token_in, token_in_mint, token_in_decimals, token_out, token_out_mint, token_out_decimals,
        amount_in, slippage_bps, metadata, created_at_ms
    )
),
stored as (
    insert into orders (
        order_id, account, idempotency_key, request_digest, client_order_id,
        token_in, token_in_mint, token_in_decimals, token_out, token_out_mint, token_out_decimals,
        amount_in, slippage_bps, metadata, created_at_ms,
        status, seq, attempt, updated_at_ms, quotes, due_at_ms
    )
    select input.*, 'pending', 1, 0, created_at_ms, '[]', now_ms() + $16
    from input
    on conflict on constraint orders_one_per_idempotency_key do nothing
    returning order_id, created_at_ms
),
first_events as (
    insert into order_events (order_id, seq, status, attempt, at_ms, data)
    select order_id, 1, 'pending', 0, created_at_ms, '{}' from stored
)
select order_id from stored
