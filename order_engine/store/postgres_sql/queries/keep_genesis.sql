-- Keeps the genesis hash of the first signing for ever; before it, the newest. Nothing comes back to one
-- of two that are first at once.
with kept as (
    insert into cluster (one, genesis_hash) values (1, $1)
    on conflict (one) do update set genesis_hash = excluded.genesis_hash
    where not exists (select from attempts)
    returning genesis_hash
)
select genesis_hash from kept
union all
select genesis_hash from cluster where not exists (select from kept)
