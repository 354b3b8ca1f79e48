-- The second wall between tenants: whoever acts for a tenant takes on a role that row-level security applies to.
-- The first wall is every query's own `where tenant = ...`.

do $$
begin
    -- Roles belong to the whole server, so another database's migration may have made it.
    create role tickgate_tenant nologin nosuperuser nobypassrls;
exception
    when duplicate_object or unique_violation then null;
end
$$;

do $$
begin
    if not pg_has_role(current_user, 'tickgate_tenant', 'member') then
        execute format('grant tickgate_tenant to %I', current_user);
    end if;
end
$$;

-- Null outside a tenant's transaction, and null equals nothing: no tenant, no rows.
create function current_tenant() returns text language sql stable parallel safe
    as $$ select nullif(current_setting('tickgate.tenant', true), '') $$;

alter table sources enable row level security;
create policy of_tenant on sources to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select on sources to tickgate_tenant;
