-- Credentials that are no longer good, told to every process the moment their row is committed.

-- revoked_at is the clock's time, not the transaction's: what was issued while the transaction ran is revoked too.
create table revocations (
    credential text primary key check (length(credential) between 1 and 400),
    revoked_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null
);
create index revocations_by_time on revocations (revoked_at);

create function announce_revocation() returns trigger language plpgsql as $$
begin
    perform pg_notify('tickgate_revocations', json_build_array(
        new.credential, extract(epoch from new.revoked_at), extract(epoch from new.expires_at))::text);
    return null;
end
$$;
create trigger announced after insert or update on revocations
    for each row execute function announce_revocation();
