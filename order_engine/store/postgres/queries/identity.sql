-- The one row that the first migration made.
select engine_id, bus_secret from engine_identity
