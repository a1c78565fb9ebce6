-- Stores orders, their first events and their idempotency keys; returns the ids of the new ones. An order is not new if
-- its key is known, or if another order has its client order id and ended less than $3 ms ago or not yet.
with stored as (
    insert into orders (
        order_id, account, idempotency_key, request_digest, client_order_id,
        token_in, token_in_mint, token_in_decimals, token_out, token_out_mint, token_out_decimals,
        amount_in, slippage_bps, metadata, created_at_ms,
        status, seq, attempt, updated_at_ms, quotes, due_at_ms
    )
    select new.order_id, new.account, new.idempotency_key, new.request_digest, new.client_order_id,
        new.token_in, new.token_in_mint, new.token_in_decimals,
        new.token_out, new.token_out_mint, new.token_out_decimals,
        new.amount_in, new.slippage_bps, new.metadata, new.created_at_ms,
        'pending', 1, 0, new.created_at_ms, '[]', now_ms() + $2
    from unnest($1::new_order[]) as new
    left join lateral (
        select status, updated_at_ms
        from orders
        where account = new.account and client_order_id = new.client_order_id
        order by order_id desc
        limit 1
    ) namesake on true
    where namesake.status is null
        or (namesake.status in ('confirmed', 'failed', 'cancelled') and namesake.updated_at_ms <= now_ms() - $3)
    on conflict do nothing
    returning order_id
),
first_events as (
    insert into order_events (order_id, account, seq, status, attempt, at_ms, data)
    select new.order_id, new.account, 1, 'pending', 0, new.created_at_ms, new.first_event
    from unnest($1::new_order[]) as new
    where (new.order_id in (select order_id from stored)) is true
)
select order_id from stored
