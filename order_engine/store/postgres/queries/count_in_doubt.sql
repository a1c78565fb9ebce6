select count(*), coalesce(greatest(0, now_ms() - min(signed_at_ms)), 0) from attempts where outcome is null
