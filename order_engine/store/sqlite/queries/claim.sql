update orders
set worker = :worker, fence = fence + 1, claims = claims + 1, due_at_ms = null,
    lease_until_ms = :now_ms + :lease_ms
where order_id in (select value from json_each(:order_ids))
returning *
