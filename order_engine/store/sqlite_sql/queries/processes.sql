select process_name, role, chain, max(0, ? - seen_at_ms) as seen_ago_ms from processes
