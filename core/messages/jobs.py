"""Jobs: what the gateway may ask a worker, what comes back, and which queue carries it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from core.errors.categories import Category
from core.errors.exceptions import (
    Conflict,
    Corrupt,
    Defect,
    Denied,
    Forbidden,
    Invalid,
    Misconfigured,
    NotFound,
    RateLimited,
    TickgateError,
    Unauthorized,
    Unavailable,
    UnknownOutcome,
)
from core.messages import orders
from core.messages.annotations import MarkQuery
from core.messages.message import Message
from core.messages.records import REQUESTS
from core.messages.similarity import SEARCHED, SimilarityQuestion
from core.messages.topology import QUESTIONS
from core.model.principals import Scope
from core.model.records import SHELVES, WRITING, Deed, RecordKind

TICKS_MAX: Final = 50_000
BARS_MAX: Final = 10_000
SYMBOLS_MAX: Final = 100
CURSOR_LENGTH_MAX: Final = 512
DIGITS_MAX: Final = 10
"""Behind the point of a price; spreads of bars are rounded to as many."""
ROWS_DEFAULT: Final = 1_000
DEFECT_TEXT: Final = "something on our side is broken; the developers need the fingerprint"

SymbolName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
SourceName = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
StreamName = Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
CursorText = Annotated[str, msgspec.Meta(min_length=1, max_length=CURSOR_LENGTH_MAX)]
TickLimit = Annotated[int, msgspec.Meta(ge=1, le=TICKS_MAX)]
Digits = Annotated[int, msgspec.Meta(ge=0, le=DIGITS_MAX)]
BarLimit = Annotated[int, msgspec.Meta(ge=1, le=BARS_MAX)]


class Format(StrEnum):
    """How an answer is written."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"
    PARQUET = "parquet"


CONTENT_TYPES: Final[dict[Format, str]] = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.ARROW: "application/vnd.apache.arrow.stream",
    Format.PARQUET: "application/vnd.apache.parquet",
}
assert set(CONTENT_TYPES) == set(Format), "every format has its content type"


class ExportFormat(StrEnum):
    """How a whole export is written. MT5: as MetaTrader 5 exports ticks or bars, and imports them."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"
    PARQUET = "parquet"
    MT5 = "mt5"


EXPORT_CONTENT_TYPES: Final[dict[ExportFormat, str]] = {
    **{ExportFormat(form): kind for form, kind in CONTENT_TYPES.items()},
    ExportFormat.JSON: "application/x-ndjson",
    ExportFormat.MT5: "text/tab-separated-values; charset=utf-8; header=present",
}
"""What a whole export is: its JSON is one object a line."""
assert set(EXPORT_CONTENT_TYPES) == set(ExportFormat), "every format of an export has its content type"
CONTENT_FORMATS: Final = {kind.partition(";")[0]: form for form, kind in CONTENT_TYPES.items()}


class TimeBase(StrEnum):
    """What `from` and `to` are compared with: the trade server's clock, or true UTC where its offset is known."""

    SERVER = "server"
    UTC = "utc"


class BarPrice(StrEnum):
    """Which price makes the bar. AUTO: bid where there is one, else last."""

    AUTO = "auto"
    BID = "bid"
    ASK = "ask"
    MID = "mid"
    LAST = "last"


class Interval(StrEnum):
    """The length of a bar."""

    S1 = "1s"
    S5 = "5s"
    S15 = "15s"
    S30 = "30s"
    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"


INTERVAL_MS: Final[dict[Interval, int]] = {
    Interval.S1: 1_000,
    Interval.S5: 5_000,
    Interval.S15: 15_000,
    Interval.S30: 30_000,
    Interval.M1: 60_000,
    Interval.M5: 300_000,
    Interval.M15: 900_000,
    Interval.M30: 1_800_000,
    Interval.H1: 3_600_000,
    Interval.H4: 14_400_000,
    Interval.D1: 86_400_000,
}
assert set(INTERVAL_MS) == set(Interval), "every interval has its length"


class Query(Message, frozen=True, kw_only=True):
    """One page of rows. start_ms, stop_ms: both inclusive, epoch ms on the clock named by `clock`."""

    source: SourceName | None = None
    start_ms: int | None = None
    stop_ms: int | None = None
    clock: TimeBase = TimeBase.SERVER
    cursor: CursorText | None = None
    format: Format = Format.JSON


class TickQuery(Query, frozen=True, kw_only=True):
    """Ticks of one symbol in the order of (time_msc, source, epoch, seq)."""

    symbol: SymbolName
    limit: TickLimit = ROWS_DEFAULT


class ExportQuery(Message, frozen=True, kw_only=True):
    """All ticks of one symbol in the order of (time_msc, source, epoch, seq), in one answer. Bounds as in `Query`."""

    symbol: SymbolName
    source: SourceName | None = None
    start_ms: int | None = None
    stop_ms: int | None = None
    clock: TimeBase = TimeBase.SERVER
    format: ExportFormat = ExportFormat.JSON


class BarExportQuery(ExportQuery, frozen=True, kw_only=True):
    """All bars of one symbol in the order of (time, source), in one answer.

    digits: of the symbol's prices, in which MetaTrader counts spreads; None where they are to be told from the bars.
    """

    interval: Interval = Interval.M1
    price: BarPrice = BarPrice.AUTO
    digits: Digits | None = None


class ExportOrder(Message, frozen=True, kw_only=True):
    """An export on its way to a worker. stream: the answer stream somebody reads it from."""

    query: ExportQuery
    stream: StreamName


class BarExportOrder(Message, frozen=True, kw_only=True):
    """An export of bars on its way to a worker, as `ExportOrder`."""

    query: BarExportQuery
    stream: StreamName


class BarQuery(Query, frozen=True, kw_only=True):
    """Bars of one symbol in the order of (time, source); a bar never mixes sources."""

    symbol: SymbolName
    interval: Interval = Interval.M1
    price: BarPrice = BarPrice.AUTO
    limit: BarLimit = ROWS_DEFAULT


class QuarantineQuery(Query, frozen=True, kw_only=True):
    """Rows stored apart, with their reasons."""

    symbol: SymbolName | None = None
    limit: TickLimit = ROWS_DEFAULT


class QuoteQuery(Message, frozen=True, kw_only=True):
    """The newest quote of each symbol."""

    symbols: Annotated[list[SymbolName], msgspec.Meta(min_length=1, max_length=SYMBOLS_MAX)]
    source: SourceName | None = None


class SymbolQuery(Message, frozen=True, kw_only=True):
    """Every symbol there is, with its span and size."""

    source: SourceName | None = None


class CompletenessQuery(Message, frozen=True, kw_only=True):
    """Certificates. day: days since 1970-01-01 on the trade server's clock, None for all."""

    source: SourceName | None = None
    day: int | None = None


class Probe(Message, frozen=True, kw_only=True):
    """Is anybody there? Answered by every queue."""


class Answer(Message, frozen=True, kw_only=True):
    """A finished job's answer, ready to be sent. rows: how many items the body holds; version: of the one record."""

    content_type: str
    body: bytes
    next_cursor: str | None = None
    rows: int = 0
    version: str | None = None


class ErrorReport(Message, frozen=True, kw_only=True):
    """An error on its way to the caller: what may be told, and the fingerprint to find the rest in the log."""

    category: Category
    code: str
    public: str
    fingerprint: str = ""


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset({JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED})
CANCELLED: Final = ErrorReport(
    category=Category.CONFLICT, code="JOB_CANCELLED", public="the job was cancelled"
)


class JobProgress(Message, frozen=True, kw_only=True):
    """How far a running job says it is. total: None while it does not know."""

    done: int
    total: int | None = None
    note: str = ""
    at_ms: int = 0


class JobState(Message, frozen=True, kw_only=True):
    """A job as its owner sees it. Times are UTC epoch ms."""

    id: str
    function: str
    status: JobStatus
    attempts: int
    enqueued_at_ms: int
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    progress: JobProgress | None = None
    error: ErrorReport | None = None
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """A function that can be asked for. queue: who carries it, see workers/queues.py.

    scope: what one must be allowed to ask it, and to be told its answer later. replayable: whether asking it again
    once it is dead reaches anybody.
    """

    function: str
    queue: str
    request: type[Message]
    scope: Scope
    replayable: bool = True


def _table(*kinds: JobKind) -> dict[str, JobKind]:
    return {kind.function: kind for kind in kinds}


JOBS: Final = _table(
    JobKind(function="market.symbols", queue="database", request=SymbolQuery, scope=Scope.MARKET_READ),
    JobKind(function="market.quotes", queue="database", request=QuoteQuery, scope=Scope.MARKET_READ),
    JobKind(function="market.ticks", queue="database", request=TickQuery, scope=Scope.MARKET_READ),
    *(
        JobKind(
            function=function,
            queue="database",
            request=order,
            scope=Scope.MARKET_READ,
            # Its reader was connected to the run that died.
            replayable=False,
        )
        for function, order in (("market.export", ExportOrder), ("market.export_bars", BarExportOrder))
    ),
    JobKind(function="market.bars", queue="database", request=BarQuery, scope=Scope.MARKET_READ),
    JobKind(function="market.quarantine", queue="database", request=QuarantineQuery, scope=Scope.MARKET_READ),
    JobKind(
        function="market.completeness", queue="database", request=CompletenessQuery, scope=Scope.MARKET_READ
    ),
    JobKind(function="database.health", queue="database", request=Probe, scope=Scope.HEALTH_READ),
    JobKind(function="database.probe", queue="database", request=Probe, scope=Scope.QUEUES_READ),
    JobKind(function="trading.probe", queue="trading", request=Probe, scope=Scope.QUEUES_READ),
    JobKind(
        function="orders.dispatch",
        queue="trading",
        request=orders.OrderHint,
        scope=Scope.ORDERS_WRITE,
        # What is to be done is in the outbox, and is done without it.
        replayable=False,
    ),
    *(
        JobKind(
            function=function,
            queue="database",
            request=question,
            scope=Scope.ACCOUNTS_READ if function.startswith("accounts.") else Scope.ORDERS_READ,
        )
        for function, question in orders.QUESTIONS.items()
    ),
    JobKind(function="chain.probe", queue="chain", request=Probe, scope=Scope.QUEUES_READ),
    JobKind(function="annotations.range", queue="database", request=MarkQuery, scope=Scope.MARKET_READ),
    *(
        JobKind(
            function=f"{kind}.{deed}",
            queue="database",
            request=REQUESTS[deed],
            scope=shelf.write if deed in WRITING else shelf.read,
            # A write that is asked again once its caller has gone could undo a later one.
            replayable=deed not in WRITING,
        )
        for kind, shelf in SHELVES.items()
        for deed in Deed
    ),
    *(
        JobKind(
            function=f"{kind}.search",
            queue="database",
            request=SimilarityQuestion,
            scope=SHELVES[kind].read,
        )
        for kind in SEARCHED
    ),
    *(
        JobKind(
            function=f"services.{deed}",
            queue="database",
            request=question,
            scope=SHELVES[RecordKind.SERVICES].read,
        )
        for deed, question in QUESTIONS.items()
    ),
)

_ERRORS: Final[dict[Category, type[TickgateError]]] = {
    error.category: error
    for error in (
        Invalid,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        Denied,
        RateLimited,
        Unavailable,
        UnknownOutcome,
        Corrupt,
        Misconfigured,
        Defect,
    )
}


class Reported(Defect):
    """A defect that happened, and was logged, in another process."""

    def __init__(self, report: ErrorReport) -> None:
        super().__init__(report.public, code=report.code)
        self.fingerprint = report.fingerprint


def report_of(error: BaseException, fingerprint: str = "") -> ErrorReport:
    """Say of `error` what its caller may know; of one not raised on purpose that is only that it happened."""
    if isinstance(error, TickgateError) and error.category is not Category.DEFECT:
        return ErrorReport(
            category=error.category, code=error.code, public=error.public, fingerprint=fingerprint
        )
    return ErrorReport(category=Category.DEFECT, code="DEFECT", public=DEFECT_TEXT, fingerprint=fingerprint)


def raised_from(report: ErrorReport) -> TickgateError:
    """Make the error again that was reported."""
    if report.category is Category.DEFECT or report.category not in _ERRORS:
        return Reported(report)
    return _ERRORS[report.category](report.public, code=report.code)
