-- Moves the order if the fence and the seq still match; a cancellation has no fence.
update orders
set status = :status,
    seq = :seq,
    attempt = :attempt,
    updated_at_ms = :updated_at_ms,
    venue = :venue,
    quotes = :quotes,
    min_amount_out = :min_amount_out,
    amount_out = :amount_out,
    tx_signature = :tx_signature,
    reason_code = :reason_code,
    reason_message = :reason_message,
    claims = 0,
    -- A cancellation raises the order's fence, so that the worker lets the order go.
    fence = fence + case when :held_fence is null then 1 else 0 end,
    worker = case
        when :status in ('confirmed', 'failed', 'cancelled', 'retrying') then null else worker end,
    lease_until_ms = case
        when :status in ('confirmed', 'failed', 'cancelled', 'retrying') then null else lease_until_ms end,
    due_at_ms = case
        when :status = 'retrying' then :now_ms + :due_in_ms
        when :status in ('confirmed', 'failed', 'cancelled') then null
        else due_at_ms end
where order_id = :order_id and seq = :expected_seq
    and (:held_fence is null or (fence = :held_fence and worker is not null))
