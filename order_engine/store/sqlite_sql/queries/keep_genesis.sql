-- Keeps the first genesis hash for ever.
insert into cluster (one, genesis_hash) values (1, ?) on conflict (one) do update set genesis_hash = genesis_hash
returning genesis_hash
