delete from pauses where account = ?
