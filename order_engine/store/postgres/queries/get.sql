select * from orders where order_id = any($1::uuid[])
