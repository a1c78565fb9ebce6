update orders
set lease_until_ms = :now_ms + :lease_ms
where (order_id, fence) in (select json_extract(value, '$[0]'), json_extract(value, '$[1]') from json_each(:claims)) and worker = :worker
returning order_id
