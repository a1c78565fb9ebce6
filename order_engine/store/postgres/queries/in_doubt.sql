select a.order_id, a.attempt, a.signature, a.raw, a.owner, a.last_valid_block_height, a.signed_slot,
    a.signed_block_height, a.blockhash_slot, a.signed_at_ms, a.genesis_hash, a.outcome, a.evidence
from attempts a
join orders o on o.order_id = a.order_id
where a.outcome is null and o.account = $1
order by a.signed_at_ms, a.order_id
limit $2
