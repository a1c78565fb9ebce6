update api_keys k
set last_used_at_ms = greatest(k.last_used_at_ms, used.at_ms)
from unnest($1::uuid[], $2::bigint[]) as used (key_id, at_ms)
where k.key_id = used.key_id
