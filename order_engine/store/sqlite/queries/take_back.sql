-- Ends every lease; the claims stay counted.
update orders set lease_until_ms = :now_ms where lease_until_ms > :now_ms
