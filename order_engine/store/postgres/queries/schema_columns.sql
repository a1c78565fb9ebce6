select attname from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped
