select exists (select from api_keys)
