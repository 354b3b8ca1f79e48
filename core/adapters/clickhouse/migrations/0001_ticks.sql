-- Every row of every terminal, once. docs/decisions/0004 says why quarantined rows live here too.
-- Codecs: measured, 4.6 bytes a tick. Order: one source's symbol in market time; (epoch, seq) keeps the terminal's
-- own order within a millisecond. Times before 1970 or after 2099 are nobody's: one partition holds them all. seq_range lets the resume query skip what lies below a known floor.
create table if not exists ticks (
    source         LowCardinality(String),
    epoch          UInt32 codec(ZSTD(1)),
    seq            UInt64 codec(Delta(8), ZSTD(1)),
    symbol         LowCardinality(String),
    time           Int64 codec(Delta(8), ZSTD(1)),
    time_msc       Int64 codec(Delta(8), ZSTD(1)),
    bid            Float64 codec(Delta(8), ZSTD(1)),
    ask            Float64 codec(Delta(8), ZSTD(1)),
    last           Float64 codec(Delta(8), ZSTD(1)),
    volume         UInt64 codec(ZSTD(1)),
    volume_real    Float64 codec(ZSTD(1)),
    flags          UInt32 codec(T64, ZSTD(1)),
    quarantine     Enum8('OK' = 0, 'NOT_FINITE' = 1, 'NEGATIVE' = 2, 'CROSSED' = 3, 'ABSURD_TIME' = 4,
                         'TIME_MISMATCH' = 5, 'NO_PRICE' = 6) codec(ZSTD(1)),
    backfill       UInt8 codec(ZSTD(1)),
    utc_offset_s   Nullable(Int32) codec(ZSTD(1)),
    captured_at_ms Int64 codec(Delta(8), ZSTD(1)),
    index seq_range seq type minmax granularity 1,
    index epoch_range epoch type minmax granularity 1
)
engine = MergeTree
partition by if(time_msc between 0 and 4102444799999, toYYYYMM(fromUnixTimestamp64Milli(time_msc, 'UTC')), 0)
order by (source, symbol, time_msc, epoch, seq)
settings
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1,
    old_parts_lifetime = 480,
    non_replicated_deduplication_window = 0,
    merge_selector_base = 16,
    auto_statistics_types = '';
