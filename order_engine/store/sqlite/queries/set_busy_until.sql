update account_limits set busy_until_ms = ? where account = ?
