-- Jobs that failed for good. The system's own have the tenant '', which no tenant's transaction can see.

create table dead_letters (
    -- Sorts by time: 11 hexadecimal digits of epoch milliseconds, then chance.
    id text primary key check (id ~ '^[0-9a-f]{27}$'),
    job_id text not null check (length(job_id) between 1 and 400),
    queue text not null,
    function text not null,
    tenant text not null,
    job bytea not null,
    attempts integer not null check (attempts >= 0),
    category text not null,
    code text not null,
    public text not null,
    fingerprint text not null,
    traceparent text not null,
    first_failed_at timestamptz not null,
    last_failed_at timestamptz not null,
    state text not null default 'dead' check (state in ('dead', 'replayed')),
    replay_job_id text check ((state = 'replayed') = (replay_job_id is not null))
);
create index dead_letters_of_tenant on dead_letters (tenant, id desc);
create index dead_letters_by_time on dead_letters (last_failed_at);

alter table dead_letters enable row level security;
create policy of_tenant on dead_letters to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select on dead_letters to tickgate_tenant;
grant update (state, replay_job_id) on dead_letters to tickgate_tenant;
