select amount from account_usage where account = ? and day = ? and mint = ?
