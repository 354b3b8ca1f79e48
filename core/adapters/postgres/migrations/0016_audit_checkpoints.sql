-- Signed checkpoints of the audit trail, kept here too so that the next one knows where it begins. They belong to the
-- house: no tenant's role sees them.

create table audit_checkpoints (
    stream text not null,
    size bigint not null check (size > 0),
    checkpoint text not null,
    head bytea not null,
    roots bytea not null,
    anchored_at timestamptz,
    primary key (stream, size)
);
create index audit_checkpoints_to_anchor on audit_checkpoints (stream, size) where anchored_at is null;
