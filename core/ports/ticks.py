"""Ticks: the store they are durable in, who writes it, who reads it, and the sources they come from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from core.messages.jobs import Answer, BarQuery, QuarantineQuery, TickQuery
    from core.messages.wire import Notice
    from core.model.freshness import Reach
    from core.model.ticks import MarketCursor, Tally, TickBlock

Exported_contra = TypeVar("Exported_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One feed of ticks and the tenant it belongs to. rotation: of the token that was shown for it."""

    name: str
    tenant: str
    rotation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What retention has dropped of one (source, epoch). months: their names, YYYYMM."""

    rows: int = 0
    last_seq: int = 0
    months: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write one source's ticks. generation: grows with every holder; expires_in_s: from now.

    rotation: of the token it was taken with.
    """

    source: str
    holder: str
    generation: int
    expires_in_s: float
    rotation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What became of leases, by source. ended: not renewed because the source is closed or has another token now."""

    renewed: frozenset[str]
    ended: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TickInsert:
    """A block as its store takes it. body: in the store's own format, in pieces."""

    block: TickBlock
    body: tuple[bytes | memoryview, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochAudit:
    """What the store holds of one (source, epoch). distinct: how many different seqs."""

    source: str
    epoch: int
    rows: int
    distinct: int
    first_seq: int
    last_seq: int
    quarantined: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTally:
    """The store's own figures for one connector tally."""

    rows: int
    checksum: int


class TickStore(Protocol):
    """The store of ticks as the bridge uses it: the only authority on what is durable."""

    async def durable_seq(self, source: str, epoch: int, floor: int = 0) -> int:
        """Return the highest stored seq of this epoch, 0 when there is none.

        floor: a seq known to have been durable; it only makes the question cheap. Only meaningful after
        `drain`. Raises: Unavailable.
        """

    async def drain(self, source: str) -> None:
        """End every insert of `source` that may still commit, and return when none runs any more.

        Raises: Unavailable.
        """

    def prepare(self, block: TickBlock) -> Sequence[TickInsert]:
        """Cut the block, in seq order, into inserts that each lie in one partition, and encode them."""

    async def append(self, insert: TickInsert, generation: int) -> None:
        """Store one prepared insert, atomically and fsynced. generation: of the lease, to tell holders apart.

        Raises:
            UnknownOutcome: the answer is missing or an error: drain, re-read durable_seq.
        """

    async def cursors(self, source: str) -> Mapping[str, MarketCursor]:
        """Return for each symbol of `source` where its newest ticks stand in market time. Raises: Unavailable."""


class Certifier(Protocol):
    """The store of ticks as the verifier uses it."""

    async def sources(self) -> Sequence[str]:
        """Name every source the store holds ticks of. Raises: Unavailable."""

    async def epochs(self, source: str) -> Sequence[EpochAudit]:
        """Audit every epoch of `source`. Raises: Unavailable."""

    async def tally(self, source: str, epoch: int, tally: Tally) -> StoredTally:
        """Compute the store's side of one tally. Raises: Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredMonth:
    """A month of the store that may go. name: YYYYMM; contents: rows and highest seq in it, by (source, epoch)."""

    name: str
    contents: Mapping[tuple[str, int], tuple[int, int]]


class Retention(Protocol):
    """The store of ticks as the retention policy uses it."""

    async def expired(self, before_ms: int) -> Sequence[ExpiredMonth]:
        """Return the months that ended before `before_ms` and are quiet. Raises: Unavailable."""

    async def drop(self, month: ExpiredMonth) -> None:
        """Drop one month, all or nothing. Raises: Unavailable."""


class TickReader(Protocol):
    """The store of ticks as readers use it. Every query names the sources its tenant owns."""

    async def symbols(self, sources: Sequence[str]) -> Answer:
        """List symbols with source, first and last time_msc and number of ticks. Raises: Unavailable."""

    async def ticks(self, query: TickQuery, sources: Sequence[str]) -> Answer:
        """Answer one page of ticks in the asked format. Raises: Unavailable, Invalid."""

    async def bars(self, query: BarQuery, sources: Sequence[str]) -> Answer:
        """Answer one page of bars. Raises: Unavailable, Invalid."""

    def reach(self, query: BarQuery, answer: Answer | None) -> Reach:
        """Return the ticks that decide on the answer to `query`; fewer, once the answer is there.

        Raises: Invalid: the cursor is none of this list.
        """

    async def quarantine(self, query: QuarantineQuery, sources: Sequence[str]) -> Answer:
        """Answer one page of quarantined rows with their reasons. Raises: Unavailable, Invalid."""

    async def last_quotes(self, sources: Sequence[str], symbols: Sequence[str]) -> Sequence[bytes]:
        """Return the newest stored quote of each (source, symbol) as JSON, for when the fast copy is empty.

        Raises: Unavailable.
        """


class ExportPages(Protocol[Exported_contra]):
    """Ticks, or bars made of them, as exports read them: all of an answer, a bounded piece at a time."""

    async def sources(self, query: Exported_contra, sources: Sequence[str], rows_max: int) -> Sequence[str]:
        """Return those of `sources` that have ticks to export.

        Raises: Invalid (code TOO_MANY_ROWS): together they have more than `rows_max` of what is exported, or so many
        bars are possible that there may be more. Unavailable.
        """

    def pages(self, query: Exported_contra, sources: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """Yield what is exported in its order, at least one page.

        JSON: lines. CSV: lines, the first page with the header. Arrow and Parquet: each page an Arrow stream of
        the same schema. Raises: Unavailable.
        """


class SourceRegistry(Protocol):
    """Sources, their epochs, leases, tallies and notices in the ledger."""

    async def authenticate(self, source: str, token: str) -> Source:
        """Return the source this token may write. Raises: Unauthorized, Unavailable."""

    async def has_forgotten(self, source: str, install: str) -> bool:
        """Whether the ledger was restored from a backup and does not know this install. Raises: Unavailable."""

    async def epoch_of(self, source: str, install: str) -> int:
        """Return the epoch of this install, giving it the next one when it is new. Raises: Unavailable."""

    async def sources_of(self, tenant: str) -> Sequence[str]:
        """Return the names of a tenant's sources. Raises: Unavailable."""

    async def take_lease(self, source: Source, holder: str, ttl_s: float) -> Lease:
        """Take or renew the lease. A holder takes its own lease back at once.

        Raises: Conflict (code LEASE_HELD) while somebody else's has not run out, Unauthorized: the token that was
        shown for it is good no more. Unavailable.
        """

    async def renew_leases(self, leases: Sequence[Lease], ttl_s: float) -> Renewal:
        """Renew those that are still ours and whose token is still good. Raises: Unavailable."""

    async def release_lease(self, lease: Lease) -> None:
        """Give the lease up, if it is still ours. Raises: Unavailable."""

    async def record_tallies(self, source: str, epoch: int, tallies: Sequence[Tally]) -> None:
        """Keep the newest tally of each symbol and day, and how far the epoch is. Raises: Unavailable."""

    async def recorded_tallies(self, source: str, epoch: int, day: int | None) -> Sequence[Tally]:
        """Return the tallies kept, by symbol and day. Raises: Unavailable."""

    async def record_notice(self, source: str, epoch: int, notice: Notice) -> None:
        """Keep what a connector said about its terminal. Raises: Unavailable."""

    async def epochs(self, source: str) -> Mapping[int, Dropped]:
        """Return every epoch of `source` with what retention has dropped of it. Raises: Unavailable."""

    async def note_drop(self, month: ExpiredMonth) -> None:
        """Note, before it happens, that a month is dropped. Noting the same again adds nothing. Raises: Unavailable."""


class LatestQuotes(Protocol):
    """The newest quote of each symbol: lossy by design, never the record of anything."""

    async def put(self, source: str, quotes: Mapping[str, bytes]) -> None:
        """Keep `quotes`, symbol to JSON. Raises: Unavailable."""

    async def get(self, source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        """Return what is there of `symbols`, or all. Raises: Unavailable."""
