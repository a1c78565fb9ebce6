update retention set is_deleting_ended = ?
