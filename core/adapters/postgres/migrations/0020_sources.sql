-- Sources that tenants keep themselves. title: what its tenant calls it; version: names what was written last.
-- rotation: grows whenever the token changes, by whatever means. closed_at: from then on nobody may write it; the row
-- stays, so that its ticks stay somebody's and its name is never another's.
alter table sources
    add column title      text not null default '' check (length(title) <= 120),
    add column version    text not null default gen_random_uuid()::text,
    add column updated_at timestamptz not null default now(),
    add column rotation   integer not null default 1,
    add column rotated_at timestamptz,
    add column closed_at  timestamptz;

create function note_rotation() returns trigger language plpgsql as $$
begin
    new.rotation := old.rotation + 1;
    new.rotated_at := now();
    return new;
end
$$;
create trigger rotated before update of token_hash on sources for each row
    when (old.token_hash is distinct from new.token_hash) execute function note_rotation();

-- Which token the holder has shown, and when it last said that it is there. A lease of another rotation is not renewed.
alter table source_leases
    add column rotation integer not null default 1,
    add column seen_at  timestamptz;

-- The highest seq its tallies tell of, so that nobody has to read them all to say how far a source is.
alter table source_epochs add column tallied_seq bigint not null default 0;
update source_epochs set tallied_seq = coalesce((select max(last_seq) from source_tallies tallies
    where tallies.source = source_epochs.source and tallies.epoch = source_epochs.epoch), 0);

grant select (title, version, updated_at, rotated_at, closed_at) on sources to tickgate_tenant;
grant insert (name, tenant, token_hash, title) on sources to tickgate_tenant;
grant update (token_hash, title, version, updated_at, closed_at) on sources to tickgate_tenant;
