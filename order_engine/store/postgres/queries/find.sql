select *
from orders
where account = $1
    and ($2::text is null or status = $2)
    and ($3::text is null or token_in = $3)
    and ($4::text is null or token_out = $4)
    and ($5::text is null or client_order_id = $5)
    and ($6::bigint is null or created_at_ms > $6)
    and ($7::bigint is null or created_at_ms < $7)
    and ($8::bigint is null or (status in ('confirmed', 'failed', 'cancelled') and updated_at_ms > $8))
    and ($9::bigint is null or (status in ('confirmed', 'failed', 'cancelled') and updated_at_ms < $9))
    and ($10::uuid is null or order_id < $10)
order by order_id desc
limit $11
