delete from tickets where expires_at_ms <= ?
