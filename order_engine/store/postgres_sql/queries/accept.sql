-- Orders, their first events and their idempotency keys; returns the ids that were new.
with stored as (
    insert into orders (
        order_id, account, idempotency_key, request_digest, client_order_id,
        token_in, token_in_mint, token_in_decimals, token_out, token_out_mint, token_out_decimals,
        amount_in, slippage_bps, metadata, created_at_ms,
        status, seq, attempt, updated_at_ms, quotes, due_at_ms
    )
    select new.*, 'pending', 1, 0, created_at_ms, '[]', now_ms() + $2
    from unnest($1::new_order[]) as new
    on conflict on constraint orders_one_per_idempotency_key do nothing
    returning order_id, created_at_ms
),
first_events as (
    insert into order_events (order_id, seq, status, attempt, at_ms, data)
    select order_id, 1, 'pending', 0, created_at_ms, '{}' from stored
)
select order_id from stored
