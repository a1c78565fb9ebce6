delete from orders where order_id in (select value from json_each(?))
