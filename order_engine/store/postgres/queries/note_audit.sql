insert into audit (key_id, address, action, subject, details) values ($1, $2, $3, $4, $5)
