-- Who may ask for tokens, and the feeds of ticks with their epochs, leases, tallies and notices.

create table api_clients (
    client_id   text primary key,
    tenant      text not null,
    secret_hash text not null check (secret_hash ~ '^[0-9a-f]{64}$'),
    scopes      text[] not null,
    created_at  timestamptz not null default now(),
    disabled_at timestamptz
);

create table sources (
    name       text primary key check (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    tenant     text not null,
    token_hash text not null check (token_hash ~ '^[0-9a-f]{64}$'),
    created_at timestamptz not null default now()
);
create index sources_by_tenant on sources (tenant);

-- An epoch is one life of one spool: seq counts from 1 within it.
create table source_epochs (
    source      text not null references sources (name),
    epoch       integer not null check (epoch > 0),
    install     text not null check (length(install) between 1 and 64),
    started_at  timestamptz not null default now(),
    primary key (source, epoch),
    unique (source, install)
);

-- What retention has dropped, noted before it happens: rows of one month and the highest seq among them, so that
-- neither the resume query nor a certificate takes it for a loss.
create table source_drops (
    source   text not null,
    epoch    integer not null,
    month    text not null check (month ~ '^[0-9]{6}$'),
    rows     bigint not null,
    last_seq bigint not null,
    primary key (source, epoch, month),
    foreign key (source, epoch) references source_epochs (source, epoch)
);

create table source_leases (
    source     text primary key references sources (name),
    holder     text not null,
    generation bigint not null,
    expires_at timestamptz not null
);

-- What the connector says it sent: rows and checksum of one symbol and day, up to last_seq.
-- numeric(20) holds an unsigned 64-bit checksum.
create table source_tallies (
    source    text not null,
    epoch     integer not null,
    symbol    text not null,
    day       bigint not null,
    rows      bigint not null check (rows > 0),
    first_seq bigint not null,
    last_seq  bigint not null,
    checksum  numeric(20) not null,
    primary key (source, epoch, symbol, day),
    foreign key (source, epoch) references source_epochs (source, epoch)
);

create table source_notices (
    id         bigint generated always as identity primary key,
    source     text not null,
    epoch      integer not null,
    code       text not null,
    symbol     text not null,
    detail     text not null,
    at_ms      bigint not null,
    foreign key (source, epoch) references source_epochs (source, epoch)
);
create index source_notices_by_source on source_notices (source, at_ms);
