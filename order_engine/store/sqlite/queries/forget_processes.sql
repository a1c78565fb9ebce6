delete from processes where seen_at_ms < ?
