select * from orders where account = ? and idempotency_key = ?
