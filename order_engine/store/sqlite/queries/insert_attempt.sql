insert into attempts (order_id, attempt, signature, raw, owner, last_valid_block_height, signed_slot,
    signed_block_height, blockhash_slot, signed_at_ms, genesis_hash)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
