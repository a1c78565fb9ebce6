update attempts set outcome = ?, evidence = ? where order_id = ? and attempt = ?
