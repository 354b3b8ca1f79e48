-- What somebody has set of risk: limits with all their versions, trading states, kill switches.

-- One row of numbers for all limits, so that the highest in force names the moment.
create sequence risk_versions;

create table risk_limits (
    tenant text not null,
    scope text not null check (scope in ('tenant', 'account', 'strategy', 'symbol')),
    target text collate "C" not null,
    version bigint not null default nextval('risk_versions'),
    limits jsonb not null,
    author text not null,
    set_at timestamptz not null default clock_timestamp(),
    primary key (tenant, scope, target, version),
    check ((scope = 'tenant') = (target = ''))
);

alter sequence risk_versions owned by risk_limits.version;

create table trading_states (
    tenant text not null,
    scope text not null check (scope in ('tenant', 'account', 'strategy')),
    target text collate "C" not null,
    state text not null check (state in ('ACTIVE', 'REDUCING', 'HALTED')),
    version bigint not null default 1,
    reason text not null,
    author text not null,
    set_at timestamptz not null default clock_timestamp(),
    primary key (tenant, scope, target),
    check ((scope = 'tenant') = (target = ''))
);

create table kill_switches (
    id uuid primary key default gen_random_uuid(),
    -- Empty: of everybody.
    tenant text not null,
    scope text not null check (scope in ('global', 'tenant', 'account', 'strategy')),
    target text collate "C" not null,
    reason text not null,
    engaged_by text not null,
    engaged_at timestamptz not null default clock_timestamp(),
    released_by text,
    released_at timestamptz,
    check ((scope = 'global') = (tenant = '')),
    check ((scope in ('global', 'tenant')) = (target = '')),
    check ((released_by is null) = (released_at is null))
);
create index kill_switches_of_tenant on kill_switches (tenant, id);
create index kill_switches_engaged on kill_switches (tenant) where released_at is null;

alter table risk_limits enable row level security;
create policy of_tenant on risk_limits to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert on risk_limits to tickgate_tenant;
grant usage on sequence risk_versions to tickgate_tenant;

alter table trading_states enable row level security;
create policy of_tenant on trading_states to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert, update on trading_states to tickgate_tenant;

-- A switch of everybody is seen by everybody, and set by the operator alone.
alter table kill_switches enable row level security;
create policy of_tenant on kill_switches to tickgate_tenant
    using (tenant = current_tenant() or (tenant = '' and current_tenant() is not null))
    with check (tenant = current_tenant());
grant select, insert on kill_switches to tickgate_tenant;
grant update (released_by, released_at) on kill_switches to tickgate_tenant;
