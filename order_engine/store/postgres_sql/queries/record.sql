-- Moves orders on, one row an order: the order where fence and seq still fit, then its events and
-- its attempts if it was moved. Returns the orders moved; the others were fenced.
-- `(... in (select ...)) is true` and not a join: that keeps the planner at one hashed look-up a row,
-- where a join, without hash joins, would compare every row of the batch with every other.
-- `= any(...)` beside each join bounds what a plan that was made for empty tables can read.
with input as (
    select *
    from unnest(
        $1::uuid[], $2::bigint[], $3::integer[],
        $4::text[], $5::integer[], $6::integer[], $7::bigint[],
        $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::text[], $13::text[], $14::text[],
        $15::bigint[]
    ) as t (
        order_id, held_fence, expected_seq,
        status, seq, attempt, updated_at_ms,
        venue, quotes, min_amount_out, amount_out, tx_signature, reason_code, reason_message,
        due_in_ms
    )
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
        -- A cancellation names no fence: it raises it, so that whoever works on the order lets go.
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
        and o.order_id = any($1::uuid[])
        and o.seq = i.expected_seq
        and (i.held_fence is null or (o.fence = i.held_fence and o.worker is not null))
    returning o.order_id
),
events as (
    insert into order_events (order_id, seq, status, attempt, at_ms, data)
    select e.*
    from unnest($16::uuid[], $17::integer[], $18::text[], $19::integer[], $20::bigint[], $21::text[])
        as e (order_id, seq, status, attempt, at_ms, data)
    where (e.order_id in (select order_id from moved)) is true
),
signed as (
    insert into attempts (order_id, attempt, signature, raw, last_valid_block_height, signed_slot, signed_at_ms,
        genesis_hash)
    select s.*
    from unnest($22::uuid[], $23::integer[], $24::text[], $25::bytea[], $26::bigint[], $27::bigint[],
        $28::bigint[], $29::text[])
        as s (order_id, attempt, signature, raw, last_valid_block_height, signed_slot, signed_at_ms, genesis_hash)
    where (s.order_id in (select order_id from moved)) is true
),
proven as (
    update attempts a
    set outcome = p.outcome, evidence = p.evidence
    from unnest($30::uuid[], $31::integer[], $32::text[], $33::text[])
        as p (order_id, attempt, outcome, evidence)
    where a.order_id = p.order_id and a.attempt = p.attempt
        and a.order_id = any($30::uuid[])
        and (p.order_id in (select order_id from moved)) is true
)
select order_id from moved
