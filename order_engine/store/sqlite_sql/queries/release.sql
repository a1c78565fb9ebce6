-- Gives back an unfinished order; the claim is not counted, since nothing went wrong with it.
update orders
set worker = null, lease_until_ms = null, due_at_ms = :now_ms, claims = max(claims - 1, 0)
where order_id = :order_id and fence = :fence and worker = :worker
