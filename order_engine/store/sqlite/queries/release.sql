-- Gives back an unfinished order; the claim is not counted, since nothing went wrong with it. A poison order (claimed
-- more than :poison_claims times) gets a lapsed lease and no due time.
update orders
set worker = case when claims > :poison_claims then worker end,
    lease_until_ms = case when claims > :poison_claims then :now_ms end,
    due_at_ms = case when claims > :poison_claims then null else :now_ms end,
    claims = max(claims - 1, 0)
where (order_id, fence) in (select json_extract(value, '$[0]'), json_extract(value, '$[1]') from json_each(:claims)) and worker = :worker
