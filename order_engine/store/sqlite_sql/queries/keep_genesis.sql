-- Keeps the genesis hash of the first signing for ever; before it, the newest.
insert into cluster (one, genesis_hash) values (1, ?)
on conflict (one) do update set
    genesis_hash = case when exists (select 1 from attempts) then genesis_hash else excluded.genesis_hash end
returning genesis_hash
