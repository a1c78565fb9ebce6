update orders
set lease_until_ms = :now_ms + :lease_ms
where order_id = :order_id and fence = :fence and worker = :worker
