-- Orders: their states, what moved them, what still has to be done about them, and what they became: deals and positions.

alter table accounts
    add column venue text not null default 'none' check (venue in ('none', 'paper', 'mt5')),
    add column source text not null default '',
    add column opening_balance decimal_text not null default '100000';

-- Two accounts at one terminal would each take the other's orders for somebody else's.
create unique index accounts_at_terminal on accounts (tenant, source) where venue = 'mt5';

-- How an account stands, as its venue last said. Its row is what everybody who changes the account's orders locks first.
create table account_books (
    tenant text not null,
    account text collate "C" not null,
    balance numeric,
    equity numeric,
    margin numeric,
    margin_free numeric,
    notional numeric,
    day date,
    day_start_equity numeric,
    peak_equity numeric,
    consecutive_rejects integer not null default 0,
    deals_until_ms bigint not null default 0,
    moves bigint not null default 0,
    viewed_at timestamptz,
    reconciled_at timestamptz,
    primary key (tenant, account),
    -- An account that has traded stays; what became of its orders must not become nobody's.
    foreign key (tenant, account) references accounts (tenant, id)
);

create table orders (
    tenant text not null,
    id text collate "C" not null check (length(id) = 26),
    account text collate "C" not null,
    symbol text not null,
    side text not null check (side in ('buy', 'sell')),
    type text not null check (type in ('market', 'limit', 'stop', 'stop-limit')),
    time_in_force text not null check (time_in_force in ('gtc', 'day', 'gtd', 'ioc', 'fok')),
    volume numeric not null check (volume > 0),
    price numeric check (price > 0),
    stop_price numeric check (stop_price > 0),
    stop_loss numeric check (stop_loss > 0),
    take_profit numeric check (take_profit > 0),
    expires_at_ms bigint,
    valid_for_ms integer,
    reduce_only boolean not null,
    position text not null,
    client_order_id text not null,
    strategy text not null,
    magic bigint not null,
    state text not null,
    version integer not null default 1,
    filled_volume numeric not null default 0 check (filled_volume >= 0),
    average_price numeric,
    venue_order text not null default '',
    retcode integer,
    code text not null default '',
    reason text not null default '',
    denials jsonb not null default '[]',
    limits_version bigint not null default 0,
    margin_needed numeric not null default 0,
    notional numeric not null default 0,
    submitted_by text not null,
    external boolean not null default false,
    traceparent text not null default '',
    submitted_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    sent_at timestamptz,
    absent_since timestamptz,
    primary key (tenant, id),
    check (filled_volume <= volume)
);
create unique index orders_of_client on orders (tenant, account, client_order_id)
    where client_order_id <> '' and state <> 'DENIED';
create unique index orders_at_venue on orders (tenant, account, venue_order) where venue_order <> '';
create index orders_of_account on orders (tenant, account, id);
create index orders_lately on orders (tenant, account, submitted_at);
create index orders_in_motion on orders (tenant, account) where state in
    ('QUEUED', 'SENDING', 'UNKNOWN', 'ACCEPTED', 'PARTIALLY_FILLED', 'PENDING_CANCEL', 'PENDING_MODIFY');

-- The same table as core/model/orders.py has; a test compares them.
create function order_may_move(old text, new text) returns boolean language sql immutable parallel safe as $$
    select case old
        when 'CREATED' then new in ('DENIED', 'QUEUED')
        when 'QUEUED' then new in ('SENDING', 'DENIED', 'CANCELED', 'EXPIRED')
        when 'SENDING' then
            new in ('ACCEPTED', 'PARTIALLY_FILLED', 'FILLED', 'REJECTED', 'CANCELED', 'EXPIRED', 'UNKNOWN')
        when 'UNKNOWN' then
            new in ('ACCEPTED', 'PARTIALLY_FILLED', 'FILLED', 'REJECTED', 'CANCELED', 'EXPIRED', 'QUEUED')
        when 'ACCEPTED' then new in
            ('PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'EXPIRED', 'REJECTED', 'PENDING_CANCEL', 'PENDING_MODIFY')
        when 'PARTIALLY_FILLED' then
            new in ('PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'EXPIRED', 'PENDING_CANCEL', 'PENDING_MODIFY')
        when 'PENDING_CANCEL' then new in ('ACCEPTED', 'PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'EXPIRED')
        when 'PENDING_MODIFY' then
            new in ('ACCEPTED', 'PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'EXPIRED', 'PENDING_CANCEL')
        when 'CANCELED' then new in ('PARTIALLY_FILLED', 'FILLED')
        else false
    end
$$;

create function refuse_illegal_move() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        if new.state not in ('DENIED', 'QUEUED') and not new.external then
            raise exception 'order % begins as %', new.id, new.state using errcode = 'check_violation';
        end if;
        return new;
    end if;
    if new.version <> old.version + 1 then
        raise exception 'order % was changed beside us', new.id using errcode = 'check_violation';
    end if;
    if new.filled_volume < old.filled_volume then
        raise exception 'order % would become less filled', new.id using errcode = 'check_violation';
    end if;
    if new.state <> old.state and not order_may_move(old.state, new.state) then
        raise exception 'order % may not go from % to %', new.id, old.state, new.state
            using errcode = 'check_violation';
    end if;
    return new;
end
$$;
create trigger legal_moves_only before insert or update on orders
    for each row execute function refuse_illegal_move();

create table order_events (
    tenant text not null,
    order_id text collate "C" not null,
    seq integer not null,
    at timestamptz not null default clock_timestamp(),
    old_state text not null,
    new_state text not null,
    what text not null,
    detail jsonb not null default '{}',
    traceparent text not null default '',
    primary key (tenant, order_id, seq)
);
create index order_events_of_tenant on order_events (tenant, at);

-- What somebody still has to do about an order. A row goes when it is done.
create table order_outbox (
    id bigint generated always as identity primary key,
    tenant text not null,
    account text collate "C" not null,
    order_id text collate "C" not null,
    command text not null check (command in ('send', 'cancel', 'modify')),
    detail jsonb not null default '{}',
    created_at timestamptz not null default clock_timestamp(),
    due_at timestamptz not null default clock_timestamp(),
    tries integer not null default 0
);
create index order_outbox_due on order_outbox (due_at);
create index order_outbox_of_order on order_outbox (tenant, order_id);

create table fills (
    tenant text not null,
    account text collate "C" not null,
    deal text collate "C" not null,
    order_id text collate "C",
    venue_order text not null,
    position text not null,
    symbol text not null,
    side text not null check (side in ('buy', 'sell')),
    volume numeric not null check (volume > 0),
    price numeric not null,
    profit numeric not null,
    commission numeric not null,
    at_ms bigint not null,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (tenant, account, deal)
);
create index fills_of_order on fills (tenant, order_id);
create index fills_in_time on fills (tenant, at_ms, account, deal);

create table positions (
    tenant text not null,
    account text collate "C" not null,
    ticket text collate "C" not null,
    symbol text not null,
    side text not null check (side in ('buy', 'sell')),
    volume numeric not null check (volume > 0),
    price_open numeric not null,
    stop_loss numeric,
    take_profit numeric,
    order_id text not null,
    opened_at_ms bigint not null,
    primary key (tenant, account, ticket)
);

-- Where the ledger and a venue disagreed, and what was done about it.
create table breaks (
    tenant text not null,
    account text collate "C" not null,
    id bigint generated always as identity,
    sort text not null check (sort in ('missing', 'external', 'quantity')),
    subject text not null,
    detail jsonb not null,
    found_at timestamptz not null default clock_timestamp(),
    primary key (tenant, id)
);

do $$
declare
    name text;
begin
    foreach name in array array['account_books', 'orders', 'order_events', 'order_outbox', 'fills', 'positions', 'breaks']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_tenant on %I to tickgate_tenant'
            ' using (tenant = current_tenant()) with check (tenant = current_tenant())', name);
    end loop;
end
$$;
grant select, insert, update on account_books, orders to tickgate_tenant;
grant select, insert on order_events, fills, breaks to tickgate_tenant;
grant select, insert, update, delete on positions, order_outbox to tickgate_tenant;
