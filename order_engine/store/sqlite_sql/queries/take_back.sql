-- Frees whatever is held; the claims stay counted.
update orders set worker = null, lease_until_ms = null, due_at_ms = :now_ms where worker is not null
