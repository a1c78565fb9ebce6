select delete_ended($1, $2)
