select o.*
from unnest($1::text[], $2::text[]) as wanted (account, idempotency_key)
join orders o on o.account = wanted.account and o.idempotency_key = wanted.idempotency_key
