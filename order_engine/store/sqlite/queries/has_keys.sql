select exists (select 1 from api_keys)
