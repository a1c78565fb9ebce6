-- Keeps the first genesis hash for ever; nothing comes back to one of two that are first at once.
with kept as (
    insert into cluster (one, genesis_hash) values (1, $1) on conflict do nothing returning genesis_hash
)
select genesis_hash from kept
union all
select genesis_hash from cluster
