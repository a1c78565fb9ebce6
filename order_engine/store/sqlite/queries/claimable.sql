-- Announced orders that no worker holds: a new one at once, any other when it is due. While a pause is on, only
-- signed orders of its account are claimed, for their proof.
select order_id from orders
where order_id in (select value from json_each(:order_ids))
    and claims < :poison_claims and due_at_ms is not null
    and (status = 'pending' or due_at_ms <= :now_ms)
    and (status = 'submitted' or not exists (select 1 from pauses p where p.account in ('', orders.account)))
