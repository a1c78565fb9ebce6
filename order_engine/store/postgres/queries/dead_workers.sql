-- Workers that hold orders and have no session: a process that ends takes its sessions along, and one
-- that lives asks the store something at every sweep, however busy.
select distinct worker
from orders
where lease_until_ms > (select now_ms())
    and starts_with(worker, $1)
    and worker not in (select application_name from pg_stat_activity where starts_with(application_name, $1))
