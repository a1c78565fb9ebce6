delete from order_events where order_id in (select value from json_each(?))
