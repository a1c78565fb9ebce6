"""Where every fact is kept: PostgreSQL, or SQLite on one machine."""
