-- Keeps the newest genesis hash until an attempt is signed, which pins it. Nothing comes back to one of
-- two that are first at once.
with kept as (
    insert into cluster (one, genesis_hash) values (1, $1)
    on conflict (one) do update set genesis_hash = excluded.genesis_hash
    -- Of the row as it is once it is locked: a signing at the same moment has its way.
    where not cluster.is_pinned
    returning genesis_hash
)
select genesis_hash from kept
union all
select genesis_hash from cluster where not exists (select from kept)
