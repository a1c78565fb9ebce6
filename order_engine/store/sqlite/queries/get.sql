select * from orders where order_id = ?
