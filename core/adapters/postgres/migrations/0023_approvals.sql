-- Approvals of denied orders. What one was granted for is its order, which never changes any more.
create table order_approvals (
    tenant text not null,
    id uuid not null default gen_random_uuid(),
    order_id text collate "C" not null,
    reason text not null,
    granted_by text not null,
    granted_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    used_by text collate "C",
    used_at timestamptz,
    revoked_by text,
    revoked_at timestamptz,
    primary key (tenant, id),
    foreign key (tenant, order_id) references orders (tenant, id),
    check ((used_by is null) = (used_at is null)),
    check ((revoked_by is null) = (revoked_at is null)),
    check (used_by is null or revoked_by is null)
);
create index order_approvals_in_time on order_approvals (tenant, granted_at, id);
create unique index order_approvals_used on order_approvals (tenant, used_by) where used_by is not null;

-- Used or revoked once, whatever the application thinks.
create function refuse_second_use() returns trigger language plpgsql as $$
begin
    if old.used_by is not null or old.revoked_by is not null then
        raise exception 'approval % is over', old.id using errcode = 'check_violation';
    end if;
    return new;
end
$$;
create trigger used_once before update on order_approvals for each row execute function refuse_second_use();

alter table order_approvals enable row level security;
create policy of_tenant on order_approvals to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert on order_approvals to tickgate_tenant;
grant update (used_by, used_at, revoked_by, revoked_at) on order_approvals to tickgate_tenant;
