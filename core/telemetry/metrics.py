"""The metric catalogue: every metric of the house with its type, unit and meaning, and nowhere else.

Label sets are bounded: never an order id, never free text. Times are seconds, sizes bytes, as Prometheus asks.
"""

from functools import lru_cache
from typing import Final, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

Labelled = TypeVar("Labelled", Counter, Gauge, Histogram)

SERIES_MAX: Final = 4_096
REGISTRY: Final = CollectorRegistry()
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# -- stores ------------------------------------------------------------------------------------------------
POOL_IN_USE: Final = Gauge(
    "tickgate_pool_in_use", "Connections of a store's pool in use", ["store"], registry=REGISTRY
)
POOL_WAITING: Final = Gauge(
    "tickgate_pool_waiting", "Callers that wait for a connection of a store", ["store"], registry=REGISTRY
)
POOL_ACQUIRE_SECONDS: Final = Histogram(
    "tickgate_pool_acquire_seconds",
    "How long a connection of a store was waited for",
    ["store"],
    buckets=_LATENCY_BUCKETS_S,
    registry=REGISTRY,
)
STORE_REFUSED: Final = Counter(
    "tickgate_store_refused_total",
    "Questions refused at once because the store did not answer those before",
    ["store"],
    registry=REGISTRY,
)

# -- bridge ------------------------------------------------------------------------------------------------
BRIDGE_CONNECTIONS: Final = Gauge(
    "tickgate_bridge_connections", "Connectors connected now", registry=REGISTRY
)
BRIDGE_SUBSCRIBERS: Final = Gauge(
    "tickgate_bridge_subscribers", "Live stream subscribers connected now", registry=REGISTRY
)
BRIDGE_FRAMES: Final = Counter("tickgate_bridge_frames_total", "BATCH frames taken", registry=REGISTRY)
BRIDGE_TICKS: Final = Counter(
    "tickgate_bridge_ticks_total",
    "Ticks made durable, quarantined ones included",
    ["source"],
    registry=REGISTRY,
)
BRIDGE_QUARANTINED: Final = Counter(
    "tickgate_bridge_quarantined_total", "Ticks stored apart, by reason", ["reason"], registry=REGISTRY
)
BRIDGE_OVERLAP_ROWS: Final = Counter(
    "tickgate_bridge_overlap_rows_total", "Ticks dropped because they were durable already", registry=REGISTRY
)
BRIDGE_NACKS: Final = Counter(
    "tickgate_bridge_nacks_total", "Frames or connections refused, by code", ["code"], registry=REGISTRY
)
BRIDGE_NOTICES_DROPPED: Final = Counter(
    "tickgate_bridge_notices_dropped_total", "NOTICEs over their limit, not kept", registry=REGISTRY
)
BRIDGE_ORDER_COMMANDS: Final = Counter(
    "tickgate_bridge_order_commands_total",
    "Commands for terminals: passed_on, answered, refused, and unanswered when the connector went away",
    ["what"],
    registry=REGISTRY,
)
TERMINAL_REFUSALS: Final = Counter(
    "tickgate_terminal_refusals_total",
    "What a person must look at on the way to a terminal: wrong_account, a terminal signed in to another account than"
    " was meant; reply_not_sealed, an answer that its source has not sealed",
    ["why"],
    registry=REGISTRY,
)
BRIDGE_UNKNOWN_OUTCOMES: Final = Counter(
    "tickgate_bridge_unknown_outcomes_total",
    "Inserts whose answer was missing and that were reconciled",
    registry=REGISTRY,
)
BRIDGE_INSERT_SECONDS: Final = Histogram(
    "tickgate_bridge_insert_seconds",
    "From sending one insert to its fsynced answer",
    buckets=_LATENCY_BUCKETS_S,
    registry=REGISTRY,
)
BRIDGE_CAPTURE_LAG_SECONDS: Final = Histogram(
    "tickgate_bridge_capture_lag_seconds",
    "From a connector reading a live tick to its being durable",
    buckets=_LATENCY_BUCKETS_S,
    registry=REGISTRY,
)
BRIDGE_CONNECTS_REFUSED: Final = Counter(
    "tickgate_bridge_connects_refused_total",
    "Connections closed because their address connects or fails too often",
    registry=REGISTRY,
)
BRIDGE_QUOTES_SKIPPED: Final = Counter(
    "tickgate_bridge_quotes_skipped_total",
    "Quotes conflated away before a subscriber saw them",
    registry=REGISTRY,
)


# -- gateway -----------------------------------------------------------------------------------------------
HTTP_REQUESTS: Final = Counter(
    "tickgate_http_requests_total", "Requests answered", ["route", "status"], registry=REGISTRY
)
HTTP_SECONDS: Final = Histogram(
    "tickgate_http_request_seconds",
    "From a request's header to the end of its answer",
    ["route"],
    buckets=_LATENCY_BUCKETS_S,
    registry=REGISTRY,
)
HTTP_IN_FLIGHT: Final = Gauge(
    "tickgate_http_requests_in_flight", "Requests being answered", registry=REGISTRY
)
TOKENS_ISSUED: Final = Counter("tickgate_tokens_issued_total", "Access tokens issued", registry=REGISTRY)

KEY_LOOK_UPS: Final = Counter(
    "tickgate_api_key_look_ups_total",
    "API keys the ledger was asked about, by outcome: valid, refused",
    ["outcome"],
    registry=REGISTRY,
)
IDEMPOTENT_REQUESTS: Final = Counter(
    "tickgate_idempotent_requests_total",
    "Requests with an Idempotency-Key, by outcome: done, freed, replayed",
    ["outcome"],
    registry=REGISTRY,
)
REVOCATIONS_KNOWN: Final = Gauge(
    "tickgate_revocations_known", "Revoked credentials this process knows", registry=REGISTRY
)
REVOCATIONS_CONFIRMED: Final = Gauge(
    "tickgate_revocations_confirmed_timestamp_seconds",
    "When the ledger last confirmed what is revoked; a minute later nobody is let in",
    registry=REGISTRY,
)
EXPORTS_RUNNING: Final = Gauge(
    "tickgate_exports_running", "Exports this process reads or sends now", registry=REGISTRY
)
ORDERS_MOVED: Final = Counter(
    "tickgate_orders_moved_total",
    "Moves of orders by the trading worker, by new state",
    ["state"],
    registry=REGISTRY,
)
AUDIT_BROKEN: Final = Counter(
    "tickgate_audit_broken_total", "Times a stream of the audit trail was found broken", registry=REGISTRY
)
AUDIT_ANCHOR_FAILURES: Final = Counter(
    "tickgate_audit_anchor_failures_total", "Checkpoints that could not be kept outside", registry=REGISTRY
)
STREAMS_RUNNING: Final = Gauge(
    "tickgate_streams_running", "Streams of order events this process sends now", registry=REGISTRY
)
EXPORT_BYTES: Final = Counter(
    "tickgate_export_bytes_total", "Bytes of exports written, by format", ["format"], registry=REGISTRY
)

RATE_LIMITED: Final = Counter(
    "tickgate_rate_limited_total",
    "Requests refused by their rate limit, by class",
    ["group"],
    registry=REGISTRY,
)
LIMITER_ALONE: Final = Gauge(
    "tickgate_limiter_alone",
    "1 while Redis is away and this process counts requests for itself",
    registry=REGISTRY,
)
REFUSED_AT_ONCE: Final = Counter(
    "tickgate_refused_at_once_total",
    "Requests refused because of how many were under way, by whose limit: process, caller, tenant",
    ["limit"],
    registry=REGISTRY,
)

# -- queue -------------------------------------------------------------------------------------------------
JOBS_ASKED: Final = Counter(
    "tickgate_jobs_asked_total", "Jobs put into a queue", ["function"], registry=REGISTRY
)
JOBS_OUTLASTED: Final = Counter(
    "tickgate_jobs_outlasted_total",
    "Jobs whose caller was told to come back",
    ["function"],
    registry=REGISTRY,
)
JOBS_RESTORED: Final = Counter(
    "tickgate_jobs_restored_total", "Awaited jobs the queue had lost and was given again", registry=REGISTRY
)
JOBS_DONE: Final = Counter(
    "tickgate_jobs_done_total",
    "Runs of a job that ended, by outcome: finished, failed, cancelled, retried, released",
    ["function", "outcome"],
    registry=REGISTRY,
)
JOB_WAIT_SECONDS: Final = Histogram(
    "tickgate_job_wait_seconds",
    "From a job being asked to its being started",
    ["queue"],
    buckets=_LATENCY_BUCKETS_S,
    registry=REGISTRY,
)
JOB_RUN_SECONDS: Final = Histogram(
    "tickgate_job_run_seconds",
    "From a job being started to its answer",
    ["function"],
    buckets=_LATENCY_BUCKETS_S,
    registry=REGISTRY,
)
JOBS_RUNNING: Final = Gauge("tickgate_jobs_running", "Jobs running now", ["queue"], registry=REGISTRY)
DEAD_LETTERS: Final = Counter(
    "tickgate_dead_letters_total", "Jobs that failed for good", ["queue", "category"], registry=REGISTRY
)
QUEUE_DEPTH: Final = Gauge(
    "tickgate_queue_depth", "Jobs asked and not ended, running ones included", ["queue"], registry=REGISTRY
)
QUEUE_OLDEST_SECONDS: Final = Gauge(
    "tickgate_queue_oldest_seconds",
    "For how long the oldest of them has been due",
    ["queue"],
    registry=REGISTRY,
)
QUEUE_IN_PROGRESS: Final = Gauge(
    "tickgate_queue_in_progress", "Jobs running now, over all workers", ["queue"], registry=REGISTRY
)
QUEUE_WORKERS: Final = Gauge("tickgate_queue_workers", "Workers alive", ["queue"], registry=REGISTRY)
DEAD_LETTERS_WAITING: Final = Gauge(
    "tickgate_dead_letters_waiting", "Dead letters on their way to the ledger", ["queue"], registry=REGISTRY
)
QUEUE_PROBE_SECONDS: Final = Histogram(
    "tickgate_queue_probe_seconds",
    "Round trip of a probe job through a queue",
    ["queue"],
    buckets=_LATENCY_BUCKETS_S,
    registry=REGISTRY,
)
QUEUE_PROBES_FAILED: Final = Counter(
    "tickgate_queue_probes_failed_total", "Probes not answered in time", ["queue"], registry=REGISTRY
)
REDIS_CONNECTED: Final = Gauge(
    "tickgate_redis_connected", "1 while a standing connection to Redis is up", ["link"], registry=REGISTRY
)

# -- cache -------------------------------------------------------------------------------------------------
CACHE_ANSWERS: Final = Counter(
    "tickgate_cache_answers_total",
    "Questions by where their answer came from: local, shared, joined (one that was being loaded), loaded, bypassed",
    ["what", "outcome"],
    registry=REGISTRY,
)
CACHE_EMPTY: Final = Counter(
    "tickgate_cache_empty_total", "Kept answers given that said there is nothing", ["what"], registry=REGISTRY
)
CACHE_REFUSED: Final = Counter(
    "tickgate_cache_refused_total",
    "Kept answers that no longer held, or could not be shown to, by where they were kept: local, shared, joined",
    ["what", "where"],
    registry=REGISTRY,
)
CACHE_LOOK_SECONDS: Final = Histogram(
    "tickgate_cache_look_seconds",
    "A question to the store of ticks whether kept answers hold: months, rows",
    ["question"],
    buckets=_LATENCY_BUCKETS_S,
    registry=REGISTRY,
)
CACHE_LOCAL_BYTES: Final = Gauge(
    "tickgate_cache_local_bytes", "Answers kept in this process", registry=REGISTRY
)
CACHE_UNSHARED: Final = Counter(
    "tickgate_cache_unshared_total",
    "Answers not put into Redis, by reason: size, budget, busy, away",
    ["reason"],
    registry=REGISTRY,
)

# -- every process -----------------------------------------------------------------------------------------
ERRORS: Final = Counter(
    "tickgate_errors_total", "Errors by category and code", ["category", "code"], registry=REGISTRY
)


@lru_cache(SERIES_MAX)
def series(metric: Labelled, *labels: str) -> Labelled:
    """Return `metric.labels(*labels)`; finding a labelled series costs more than counting in it."""
    return metric.labels(*labels)


def render() -> bytes:
    """Return every metric of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)


def value(gauge: Gauge) -> float:
    """Return what an unlabelled gauge stands at."""
    return float(gauge._value.get())


def watch_process() -> None:
    """Add the process' own CPU, memory, garbage collection and platform figures."""
    ProcessCollector(registry=REGISTRY)
    PlatformCollector(registry=REGISTRY)
    GCCollector(registry=REGISTRY)
