-- API keys, idempotency keys, and the second wall around every table a tenant's data is in.

-- An API key belongs to whoever made it: `subject`, a client or a user. parent: the key it was made with, if any;
-- revoking a key revokes all it made. While a rotation's grace lasts the old secret is good beside the new one.
create table api_keys (
    id              uuid primary key,
    tenant          text not null,
    owner_kind      text not null check (owner_kind in ('client', 'user', 'service')),
    subject         text not null,
    parent          uuid references api_keys (id),
    name            text not null check (length(name) between 1 and 100),
    scopes          text[] not null,
    prefix          text not null unique check (prefix ~ '^[0-9A-Za-z]{12}$'),
    secret_hash     bytea not null check (length(secret_hash) = 32),
    old_prefix      text unique check (old_prefix ~ '^[0-9A-Za-z]{12}$'),
    old_secret_hash bytea check (length(old_secret_hash) = 32),
    old_expires_at  timestamptz,
    created_at      timestamptz not null default now(),
    rotated_at      timestamptz,
    expires_at      timestamptz not null check (expires_at <= created_at + interval '367 days'),
    last_used_at    timestamptz,
    revoked_at      timestamptz,
    check (num_nulls(old_prefix, old_secret_hash, old_expires_at) in (0, 3))
);
create index api_keys_by_tenant on api_keys (tenant, id);
create index api_keys_by_owner on api_keys (owner_kind, subject);
create index api_keys_by_parent on api_keys (parent) where parent is not null;

-- Whoever revokes a key or takes a secret from it, by whatever means, tells every process in the same transaction.
-- It runs as the table's owner, because a tenant's role has no access to revocations. Processes need the row only to
-- drop what they remember of the key, which is a minute; the key's own row is the authority.
create function announce_key() returns trigger language plpgsql security definer set search_path = pg_catalog, public
as $$
begin
    insert into public.revocations as known (credential, expires_at)
    select credential, clock_timestamp() + interval '1 hour'
    from (values
        ('key:' || new.id, new.revoked_at is not null and old.revoked_at is null),
        ('key-secret:' || old.prefix, new.prefix <> old.prefix and new.old_prefix is distinct from old.prefix),
        ('key-secret:' || old.old_prefix, new.old_prefix is distinct from old.old_prefix)
    ) as changes (credential, ended)
    where ended and credential is not null
    on conflict (credential) do update set revoked_at = excluded.revoked_at, expires_at = excluded.expires_at;
    return null;
end
$$;
revoke all on function announce_key() from public;
create trigger announced after update of prefix, old_prefix, revoked_at on api_keys for each row execute function announce_key();

-- What a request with an Idempotency-Key did. Of the key only a hash is kept; the answer is encrypted with a key
-- derived from the key itself. status is null while it runs; whoever holds `owner` may finish it.
create table idempotency_keys (
    tenant           text not null,
    subject          text not null,
    key_hash         bytea not null check (length(key_hash) = 32),
    fingerprint      bytea not null check (length(fingerprint) = 32),
    owner            uuid not null,
    lease_expires_at timestamptz not null,
    created_at       timestamptz not null default now(),
    expires_at       timestamptz not null,
    status           integer check (status between 200 and 599),
    answer           bytea check (length(answer) <= 1048576),
    primary key (tenant, subject, key_hash),
    check (num_nulls(status, answer) in (0, 2))
);
create index idempotency_keys_by_expiry on idempotency_keys (expires_at);

-- The second wall. Exact grants: a tenant's role reads and writes what its requests need; of
-- secrets it sees the hashes of keys, because rotating one moves them. Children of a source are a tenant's where the source is.
create function is_own_source(name text) returns boolean language sql stable parallel safe
    as $$ select exists (select from sources where sources.name = is_own_source.name and tenant = current_tenant()) $$;

revoke all on sources from tickgate_tenant;
grant select (name, tenant, created_at) on sources to tickgate_tenant;

do $$
declare
    table_name text;
begin
    foreach table_name in array array['api_clients', 'api_keys', 'idempotency_keys'] loop
        execute format('alter table %I enable row level security', table_name);
        execute format('create policy of_tenant on %I to tickgate_tenant'
            ' using (tenant = current_tenant()) with check (tenant = current_tenant())', table_name);
    end loop;
    foreach table_name in array
        array['source_epochs', 'source_drops', 'source_leases', 'source_tallies', 'source_notices'] loop
        execute format('alter table %I enable row level security', table_name);
        execute format('create policy of_tenant on %I to tickgate_tenant'
            ' using (is_own_source(source)) with check (is_own_source(source))', table_name);
        execute format('grant select on %I to tickgate_tenant', table_name);
    end loop;
end
$$;
grant select (client_id, tenant, scopes, created_at, disabled_at) on api_clients to tickgate_tenant;
grant select, insert on api_keys to tickgate_tenant;
grant update (prefix, secret_hash, old_prefix, old_secret_hash, old_expires_at, rotated_at, revoked_at)
    on api_keys to tickgate_tenant;
grant select, insert, update, delete on idempotency_keys to tickgate_tenant;
