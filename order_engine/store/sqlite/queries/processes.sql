select heartbeat, max(0, ? - seen_at_ms) as seen_ago_ms from processes
