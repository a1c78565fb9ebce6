-- Moves orders on, one row per order: the order if fence and seq still match, then its events and attempts if it was
-- moved. Returns the moved orders; the others were fenced. `(... in (select ...)) is true` keeps the planner at one
-- hashed look-up per row; a join, without hash joins, would compare every row of the batch with every other. `=
-- any(...)` beside each join limits the rows that a plan made for empty tables can read.
with input as (
    select * from unnest($1::order_move[])
),
moved as (
    update orders o
    set status = i.status,
        seq = i.seq,
        attempt = i.attempt,
        updated_at_ms = i.updated_at_ms,
        venue = i.venue,
        quotes = i.quotes,
        min_amount_out = i.min_amount_out,
        amount_out = i.amount_out,
        tx_signature = i.tx_signature,
        reason_code = i.reason_code,
        reason_message = i.reason_message,
        claims = 0,
        -- A cancellation has no fence: it raises the order's fence, so that the worker lets the order go.
        fence = o.fence + case when i.held_fence is null then 1 else 0 end,
        worker = case
            when i.status in ('confirmed', 'failed', 'cancelled', 'retrying') then null else o.worker end,
        lease_until_ms = case
            when i.status in ('confirmed', 'failed', 'cancelled', 'retrying') then null else o.lease_until_ms end,
        due_at_ms = case
            when i.status = 'retrying' then now_ms() + i.due_in_ms
            when i.status in ('confirmed', 'failed', 'cancelled') then null
            else o.due_at_ms end
    from input i
    where o.order_id = i.order_id
        and o.order_id = any(array(select order_id from input))
        and o.seq = i.expected_seq
        and (i.held_fence is null or (o.fence = i.held_fence and o.worker is not null))
    returning o.order_id
),
events as (
    insert into order_events (order_id, account, seq, status, attempt, at_ms, data)
    select e.*
    from unnest($2::new_event[]) as e
    where (e.order_id in (select order_id from moved)) is true
),
signed as (
    insert into attempts (order_id, attempt, signature, raw, owner, last_valid_block_height, signed_slot,
        signed_block_height, blockhash_slot, signed_at_ms, genesis_hash)
    select s.*
    from unnest($3::signed_attempt[]) as s
    where (s.order_id in (select order_id from moved)) is true
),
proven as (
    update attempts a
    set outcome = p.outcome, evidence = p.evidence
    from unnest($4::proven_attempt[]) as p
    where a.order_id = p.order_id and a.attempt = p.attempt
        and a.order_id = any(array(select order_id from unnest($4::proven_attempt[])))
        and (p.order_id in (select order_id from moved)) is true
)
select order_id from moved
