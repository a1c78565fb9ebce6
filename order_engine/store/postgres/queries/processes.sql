select heartbeat, greatest(0, now_ms() - seen_at_ms) as seen_ago_ms from processes
