-- The audit trail: each tenant's events in a chain of hashes, appended to and never changed.

create table audit_events (
    tenant text not null,
    seq bigint not null check (seq > 0),
    type text not null,
    account text not null,
    order_id text not null,
    -- As it was hashed; the columns beside it are for finding it.
    event bytea not null,
    hash bytea not null check (length(hash) = 32),
    primary key (tenant, seq)
);
create index audit_events_of_order on audit_events (tenant, order_id, seq) where order_id <> '';

-- Where each chain ends. Whoever appends locks it, so that there are no gaps and no forks.
create table audit_heads (
    tenant text primary key,
    seq bigint not null default 0,
    hash bytea not null default decode(repeat('00', 32), 'hex')
);

create function refuse_rewriting() returns trigger language plpgsql as $$
begin
    raise exception 'the audit trail is only appended to' using errcode = 'insufficient_privilege';
end
$$;
create trigger appended_only before update or delete on audit_events
    for each row execute function refuse_rewriting();
create trigger never_truncated before truncate on audit_events
    for each statement execute function refuse_rewriting();
create trigger never_forgotten before delete on audit_heads
    for each row execute function refuse_rewriting();

create function refuse_going_back() returns trigger language plpgsql as $$
begin
    if new.tenant <> old.tenant or new.seq <> old.seq + 1 then
        raise exception 'the end of an audit trail only moves on' using errcode = 'insufficient_privilege';
    end if;
    return new;
end
$$;
create trigger moves_on before update on audit_heads for each row execute function refuse_going_back();

alter table audit_events enable row level security;
create policy of_tenant on audit_events to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert on audit_events to tickgate_tenant;

alter table audit_heads enable row level security;
create policy of_tenant on audit_heads to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert on audit_heads to tickgate_tenant;
grant update (seq, hash) on audit_heads to tickgate_tenant;
