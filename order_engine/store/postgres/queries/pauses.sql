select account, reason, since_ms from pauses order by account
