select *
from orders
where account = :account
    and (:status is null or status = :status)
    and (:token_in is null or token_in = :token_in)
    and (:token_out is null or token_out = :token_out)
    and (:client_order_id is null or client_order_id = :client_order_id)
    and (:created_after_ms is null or created_at_ms > :created_after_ms)
    and (:created_before_ms is null or created_at_ms < :created_before_ms)
    and (:ended_after_ms is null
        or (status in ('confirmed', 'failed', 'cancelled') and updated_at_ms > :ended_after_ms))
    and (:ended_before_ms is null
        or (status in ('confirmed', 'failed', 'cancelled') and updated_at_ms < :ended_before_ms))
    and (:before is null or order_id < :before)
order by order_id desc
limit :most
