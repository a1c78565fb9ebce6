select o.*
from unnest($1::text[], $2::text[]) as wanted (account, idempotency_key)
cross join lateral (
    select * from orders where account = wanted.account and idempotency_key = wanted.idempotency_key limit 1
) o
