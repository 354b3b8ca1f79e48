-- What was restored from which backup. A connector whose install this ledger does not know, and whose spool is not new,
-- was admitted after the backup was taken: see docs/decisions/0022.
create table restores (
    id          bigint generated always as identity primary key,
    backup      text not null,
    restored_at timestamptz not null default clock_timestamp()
);
