select attempt, signature, raw, owner, last_valid_block_height, signed_slot, signed_block_height,
    blockhash_slot, signed_at_ms, genesis_hash, outcome, evidence
from attempts
where order_id = $1
order by attempt
