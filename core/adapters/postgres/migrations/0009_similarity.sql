-- Records that are found by what they are like, where PostgreSQL stands in for Weaviate. Without pgvector this step
-- succeeds all the same: whoever has Weaviate needs it not, and nobody's ledger shall wait for it. Vectors are arrays
-- then, which take longer to compare once pgvector is there.

do $$
begin
    create extension if not exists vector;
exception
    when undefined_file or feature_not_supported or insufficient_privilege then
        raise notice 'pgvector cannot be installed here: similarity needs it, or Weaviate';
end
$$;

-- words: with their positions, made by us; words_count: with repetitions.
create table incidents (
    tenant text not null,
    id text collate "C" not null check (length(id) between 1 and 64),
    version text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    message text not null,
    service text not null,
    category text not null,
    fingerprint text not null,
    at_ms bigint not null,
    resolution text not null,
    vector real[] not null,
    words tsvector not null,
    words_count integer not null,
    primary key (tenant, id)
);
create index incidents_of_service on incidents (tenant, service, id);
create index incidents_of_category on incidents (tenant, category, id);

create table market_windows (
    tenant text not null,
    id text collate "C" not null check (length(id) between 1 and 64),
    version text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    symbol text not null,
    interval text not null,
    start_ms bigint not null,
    label text not null,
    closes float8[] not null,
    vector real[] not null,
    words tsvector not null,
    words_count integer not null,
    primary key (tenant, id)
);
create index market_windows_of_symbol on market_windows (tenant, symbol, id);
create index market_windows_of_label on market_windows (tenant, label, id);

do $$
begin
    if exists (select from pg_extension where extname = 'vector') then
        alter table incidents alter column vector type vector(256);
        alter table market_windows alter column vector type vector(65);
        create index incidents_nearest on incidents using hnsw (vector vector_cosine_ops);
        create index market_windows_nearest on market_windows using hnsw (vector vector_cosine_ops);
    end if;
end
$$;

alter table incidents enable row level security;
create policy of_tenant on incidents to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert, update, delete on incidents to tickgate_tenant;

alter table market_windows enable row level security;
create policy of_tenant on market_windows to tickgate_tenant
    using (tenant = current_tenant()) with check (tenant = current_tenant());
grant select, insert, update, delete on market_windows to tickgate_tenant;
