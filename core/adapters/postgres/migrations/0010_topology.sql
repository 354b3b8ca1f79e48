-- Services and the flows between them, where PostgreSQL stands in for ArangoDB.

create table services (
    tenant text not null,
    id text collate "C" not null check (length(id) between 1 and 64),
    version text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    title text not null,
    sort text not null check (sort in ('process', 'store', 'external')),
    critical boolean not null,
    primary key (tenant, id)
);
create index services_of_sort on services (tenant, sort, id);

-- A flow has both its ends, and they are its tenant's.
create table flows (
    tenant text not null,
    id text collate "C" not null check (length(id) between 1 and 64),
    version text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    origin text collate "C" not null,
    target text collate "C" not null,
    sort text not null check (sort in ('calls', 'reads', 'writes', 'publishes', 'consumes')),
    required boolean not null,
    primary key (tenant, id),
    check (origin <> target),
    foreign key (tenant, origin) references services (tenant, id),
    foreign key (tenant, target) references services (tenant, id)
);
create index flows_of_origin on flows (tenant, origin, target);
create index flows_of_target on flows (tenant, target, origin);

alter table services enable row level security;
create policy of_tenant on services to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert, update, delete on services to tickgate_tenant;

alter table flows enable row level security;
create policy of_tenant on flows to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert, update, delete on flows to tickgate_tenant;
