-- Workers that hold orders and have no session: a process's sessions end with it, and a live process queries the store
-- at every sweep, even if it is busy.
select distinct worker
from orders
where lease_until_ms > (select now_ms())
    and starts_with(worker, $1)
    and worker not in (select application_name from pg_stat_activity where starts_with(application_name, $1))
