delete from attempts where order_id in (select value from json_each(?))
