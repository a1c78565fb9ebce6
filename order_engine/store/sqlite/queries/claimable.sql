-- Announced orders that no worker holds: a new one at once, any other when it is due.
select order_id from orders
where order_id in (select value from json_each(:order_ids))
    and claims < :poison_claims and due_at_ms is not null
    and (status = 'pending' or due_at_ms <= :now_ms)
