-- Stores the newest genesis hash until a signed attempt pins it.
insert into cluster (one, genesis_hash) values (1, ?)
on conflict (one) do update set
    genesis_hash = case when is_pinned then genesis_hash else excluded.genesis_hash end
returning genesis_hash
