-- Ends the leases of dead workers; the claims stay counted.
update orders set lease_until_ms = now_ms() where lease_until_ms > (select now_ms()) and worker = any($1::text[])
