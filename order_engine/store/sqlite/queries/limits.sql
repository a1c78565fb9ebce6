select account, orders_per_minute, burst, open_orders, amount_per_order, amount_per_day
from account_limits
order by account
