select account, orders_per_minute, burst, open_orders, amount_per_order::text, amount_per_day::text
from account_limits
order by account
