update retention set deleted_before_ms = max(deleted_before_ms, ?)
