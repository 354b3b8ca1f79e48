-- Marks on the market. A write is a row with the next revision, a deletion one that says so; what is read is the last
-- revision (FINAL), whether or not merges have dropped those before it. A name once used keeps its last row for ever:
-- without it, a row that was not merged yet would come back. Deleted rows have no text.
create table if not exists annotations (
    tenant        LowCardinality(String),
    id            String,
    revision      UInt64,
    is_deleted    UInt8,
    version       String,
    created_at_ms Int64,
    updated_at_ms Int64,
    symbol        LowCardinality(String),
    start_ms      Int64,
    stop_ms       Nullable(Int64),
    label         LowCardinality(String),
    text          String codec(ZSTD(1))
)
engine = ReplacingMergeTree(revision, is_deleted)
order by (tenant, id)
settings
    index_granularity = 1024,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1,
    non_replicated_deduplication_window = 0,
    auto_statistics_types = '';
