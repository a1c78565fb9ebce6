select number, at_ms, key_id, address, action, subject, details
from audit
where :before is null or number < :before
order by number desc
limit :most
