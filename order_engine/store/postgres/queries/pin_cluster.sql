-- Stores the newest genesis hash until a signed attempt pins it. If two processes are first at the same time, one of
-- them gets no row.
with kept as (
    insert into cluster (one, genesis_hash) values (1, $1)
    on conflict (one) do update set genesis_hash = excluded.genesis_hash
    -- Checked after the row is locked, so a concurrent signing wins.
    where not cluster.is_pinned
    returning genesis_hash
)
select genesis_hash from kept
union all
select genesis_hash from cluster where not exists (select from kept)
