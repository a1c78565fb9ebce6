-- How much each account may trade, and how much it has used. The store checks them in the transaction that accepts.

create table account_limits (
    account text not null primary key,
    orders_per_minute integer check (orders_per_minute > 0),
    burst integer not null default 1 check (burst > 0),
    open_orders integer check (open_orders >= 0),
    -- JSON: base units by mint.
    amount_per_order text not null default '{}',
    amount_per_day text not null default '{}',
    -- When the account's orders so far are over, at `orders_per_minute` (the generic cell rate algorithm's theoretical
    -- arrival time).
    busy_until_ms integer not null default 0
);

create table account_usage (
    account text not null,
    -- Of UTC, counted from 1970.
    day integer not null,
    mint text not null,
    -- Base units that were sold, as text: they may need more than 64 bits.
    amount text not null,
    primary key (account, day, mint)
);
