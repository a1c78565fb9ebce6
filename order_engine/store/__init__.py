"""The stores of all orders and events: PostgreSQL, or SQLite on one machine."""
