select count(*), coalesce(max(0, ? - min(signed_at_ms)), 0) from attempts where outcome is null
