insert into orders (
    order_id, account, idempotency_key, request_digest, client_order_id,
    token_in, token_in_mint, token_in_decimals, token_out, token_out_mint, token_out_decimals,
    amount_in, slippage_bps, metadata, created_at_ms,
    status, seq, attempt, updated_at_ms, quotes, due_at_ms
)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, 'pending', 1, 0, ?15, '[]', ?16)
