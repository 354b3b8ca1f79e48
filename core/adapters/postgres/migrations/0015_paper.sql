-- Paper accounts: the venue's own truth, apart from what the ledger believes of it.

create table paper_books (
    tenant text not null,
    account text collate "C" not null,
    book jsonb,
    busy boolean not null default false,
    primary key (tenant, account)
);
create index paper_books_busy on paper_books (tenant, account) where busy;

create table paper_deals (
    tenant text not null,
    account text collate "C" not null,
    number bigint generated always as identity,
    at_ms bigint not null,
    deal jsonb not null,
    primary key (tenant, account, number)
);
create index paper_deals_in_time on paper_deals (tenant, account, at_ms);

create table paper_orders_ended (
    tenant text not null,
    account text collate "C" not null,
    number bigint generated always as identity,
    at_ms bigint not null,
    ended jsonb not null,
    primary key (tenant, account, number)
);
create index paper_orders_ended_in_time on paper_orders_ended (tenant, account, at_ms);

do $$
declare
    name text;
begin
    foreach name in array array['paper_books', 'paper_deals', 'paper_orders_ended']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_tenant on %I to tickgate_tenant'
            ' using (tenant = current_tenant()) with check (tenant = current_tenant())', name);
    end loop;
end
$$;
grant select, insert, update on paper_books to tickgate_tenant;
grant select, insert on paper_deals, paper_orders_ended to tickgate_tenant;
