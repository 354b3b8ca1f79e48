-- Refresh tokens: a family is what one client was granted once; its tokens replace each other, one is good at a time.

create table refresh_families (
    id         uuid primary key,
    tenant     text not null,
    client_id  text not null references api_clients (client_id) on delete cascade,
    scopes     text[] not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    revoked_at timestamptz
);
create index refresh_families_by_expiry on refresh_families (expires_at);

-- Of a token only its SHA-256 is kept. A rotated one stays until its family goes, so that using it again is noticed.
create table refresh_tokens (
    token_hash bytea primary key check (length(token_hash) = 32),
    tenant     text not null,
    family     uuid not null references refresh_families (id) on delete cascade,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    rotated_at timestamptz
);
create unique index refresh_tokens_one_good_in_a_family on refresh_tokens (family) where rotated_at is null;
create index refresh_tokens_by_family on refresh_tokens (family);

-- Whoever revokes a family ends its access tokens in the same transaction; they live fifteen minutes at most. It runs
-- as the table's owner, because a tenant's role has no access to revocations.
create function announce_family() returns trigger language plpgsql security definer set search_path = pg_catalog, public
as $$
begin
    insert into public.revocations (credential, expires_at)
    values ('family:' || new.id, clock_timestamp() + interval '1 hour')
    on conflict (credential) do update set revoked_at = excluded.revoked_at, expires_at = excluded.expires_at;
    return null;
end
$$;
revoke all on function announce_family() from public;
create trigger announced after update of revoked_at on refresh_families for each row
    when (old.revoked_at is null and new.revoked_at is not null) execute function announce_family();

alter table refresh_families enable row level security;
create policy of_tenant on refresh_families to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
alter table refresh_tokens enable row level security;
create policy of_tenant on refresh_tokens to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert on refresh_families, refresh_tokens to tickgate_tenant;
grant update (revoked_at) on refresh_families to tickgate_tenant;
grant update (rotated_at) on refresh_tokens to tickgate_tenant;
