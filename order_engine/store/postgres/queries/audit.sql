select number, at_ms, key_id, address, action, subject, details
from audit
where $1::bigint is null or number < $1
order by number desc
limit $2
