-- Records of the ledger. Ids sort by code point whatever the database's locale; a decimal stays the text it was.

create domain decimal_text as text check (value ~ '^([1-9][0-9]{0,11}(\.[0-9]{1,12})?|0\.0{0,9}[1-9][0-9]{0,9})$');

create table accounts (
    tenant text not null,
    id text collate "C" not null check (length(id) between 1 and 64),
    version text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    title text not null,
    login bigint not null check (login > 0),
    server text not null,
    currency text not null,
    leverage integer not null check (leverage > 0),
    trade_mode text not null check (trade_mode in ('demo', 'contest', 'real')),
    margin_mode text not null check (margin_mode in ('netting', 'hedging', 'exchange')),
    primary key (tenant, id)
);
create index accounts_of_server on accounts (tenant, server, id);

create table instruments (
    tenant text not null,
    id text collate "C" not null check (length(id) between 1 and 64),
    version text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    symbol text not null,
    description text not null,
    base_currency text not null,
    profit_currency text not null,
    margin_currency text not null,
    digits integer not null check (digits between 0 and 12),
    tick_size decimal_text not null,
    contract_size decimal_text not null,
    volume_min decimal_text not null,
    volume_max decimal_text not null,
    volume_step decimal_text not null,
    primary key (tenant, id)
);
create index instruments_of_symbol on instruments (tenant, symbol, id);

alter table accounts enable row level security;
create policy of_tenant on accounts to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert, update, delete on accounts to tickgate_tenant;

alter table instruments enable row level security;
create policy of_tenant on instruments to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert, update, delete on instruments to tickgate_tenant;
