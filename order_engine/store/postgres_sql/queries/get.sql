select * from orders where order_id = $1 and account = $2
