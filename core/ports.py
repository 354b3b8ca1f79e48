"""Every socket in the wall: what the house needs from outside, as Protocols; the hub plugs adapters in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from core.messages.dead_letters import DeadLetter
    from core.messages.jobs import (
        Answer,
        BarQuery,
        ErrorReport,
        ExportQuery,
        JobState,
        Message,
        QuarantineQuery,
        TickQuery,
    )
    from core.messages.queues import QueueStanding
    from core.messages.wire import Notice
    from core.model.keys import ApiKey, KeySecret
    from core.model.principals import Principal
    from core.model.rates import Rate, Verdict
    from core.model.retries import RetryClass
    from core.model.ticks import MarketCursor, Tally, TickBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiClient:
    """Who may ask for tokens. secret_hash: SHA-256 of a 256-bit random secret, hexadecimal."""

    client_id: str
    tenant: str
    secret_hash: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One feed of ticks and the tenant it belongs to."""

    name: str
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What retention has dropped of one (source, epoch). months: their names, YYYYMM."""

    rows: int = 0
    last_seq: int = 0
    months: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write one source's ticks. generation: grows with every holder; expires_in_s: from now."""

    source: str
    holder: str
    generation: int
    expires_in_s: float


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


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now_ms(self) -> int:
        """UTC epoch milliseconds."""

    def monotonic_s(self) -> float:
        """Seconds that never go back."""


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

    async def quarantine(self, query: QuarantineQuery, sources: Sequence[str]) -> Answer:
        """Answer one page of quarantined rows with their reasons. Raises: Unavailable, Invalid."""

    async def last_quotes(self, sources: Sequence[str], symbols: Sequence[str]) -> Sequence[bytes]:
        """Return the newest stored quote of each (source, symbol) as JSON, for when the fast copy is empty.

        Raises: Unavailable.
        """


class TickPages(Protocol):
    """The store of ticks as exports read it: all of an answer, a bounded piece at a time."""

    async def sources(self, query: ExportQuery, sources: Sequence[str], rows_max: int) -> Sequence[str]:
        """Return those of `sources` that have ticks to export.

        Raises: Invalid (code TOO_MANY_ROWS): together they have more than `rows_max`. Unavailable.
        """

    def pages(self, query: ExportQuery, sources: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """Yield the ticks in their order, at least one page.

        JSON: lines. CSV: lines, the first page with the header. Arrow and Parquet: each page an Arrow stream of
        the same schema. Raises: Unavailable.
        """


class AnswerWriter(Protocol):
    """A worker's end of an answer stream."""

    async def write(self, data: bytes) -> None:
        """Pass `data` on, waiting while the reader has enough. Raises: Unavailable."""

    async def end(self) -> None:
        """Say that the answer is complete. Raises: Unavailable."""

    async def abandoned(self) -> None:
        """Return once nobody reads any more."""


class AnswerStreams(Protocol):
    """Answers too large for one message, passed from a worker to a gateway at the reader's pace."""

    def writing(self, stream: str) -> AbstractAsyncContextManager[AnswerWriter]:
        """Open the writer's end, once and never again. Leaving it without `end` breaks the answer.

        Raises: Unavailable: somebody has begun to write it before, or the queue does not answer.
        """

    def reading(self, stream: str) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        """Open the reader's end and give the answer's chunks; leaving it early stops the writer.

        The generator raises: Unavailable (code ANSWER_BROKEN): the writer has gone without `end`.
        """


class SourceRegistry(Protocol):
    """Sources, their epochs, leases, tallies and notices in the ledger."""

    async def authenticate(self, source: str, token: str) -> Source:
        """Return the source this token may write. Raises: Unauthorized, Unavailable."""

    async def epoch_of(self, source: str, install: str) -> int:
        """Return the epoch of this install, giving it the next one when it is new. Raises: Unavailable."""

    async def sources_of(self, tenant: str) -> Sequence[str]:
        """Return the names of a tenant's sources. Raises: Unavailable."""

    async def take_lease(self, source: str, holder: str, ttl_s: float) -> Lease:
        """Take or renew the lease. A holder takes its own lease back at once.

        Raises: Conflict (code LEASE_HELD) while somebody else's has not run out, Unavailable.
        """

    async def renew_leases(self, leases: Sequence[Lease], ttl_s: float) -> frozenset[str]:
        """Renew, and return the sources whose lease is still ours. Raises: Unavailable."""

    async def release_lease(self, lease: Lease) -> None:
        """Give the lease up, if it is still ours. Raises: Unavailable."""

    async def record_tallies(self, source: str, epoch: int, tallies: Sequence[Tally]) -> None:
        """Keep the newest tally of each symbol and day. Raises: Unavailable."""

    async def recorded_tallies(self, source: str, epoch: int, day: int | None) -> Sequence[Tally]:
        """Return the tallies kept, by symbol and day. Raises: Unavailable."""

    async def record_notice(self, source: str, epoch: int, notice: Notice) -> None:
        """Keep what a connector said about its terminal. Raises: Unavailable."""

    async def epochs(self, source: str) -> Mapping[int, Dropped]:
        """Return every epoch of `source` with what retention has dropped of it. Raises: Unavailable."""

    async def note_drop(self, month: ExpiredMonth) -> None:
        """Note, before it happens, that a month is dropped. Noting the same again adds nothing. Raises: Unavailable."""


class Identity(Protocol):
    """Who may ask for what."""

    async def client(self, client_id: str) -> ApiClient | None:
        """Return the client, or None. Raises: Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecord:
    """An API client as its operator sees it."""

    client_id: str
    tenant: str
    scopes: frozenset[str]
    created_at_ms: int
    disabled_at_ms: int | None


class ClientRegistry(Protocol):
    """API clients as their operator keeps them; not bound to a tenant."""

    async def add(self, client: ApiClient) -> None:
        """Add a client. Raises: Conflict (code CLIENT_EXISTS), Unavailable."""

    async def clients(self) -> Sequence[ClientRecord]:
        """Return every client, by tenant and id. Raises: Unavailable."""

    async def disable(self, client_id: str) -> None:
        """Let the client in no more and end all it was ever given: tokens, refresh tokens and keys, at once.

        Raises: NotFound, Unavailable.
        """

    async def rotate_secret(self, client_id: str, secret_hash: str, *, revoke: bool) -> None:
        """Replace the client's secret. revoke: also end all it was given until now, as `disable` does.

        Raises: NotFound, Conflict (code CLIENT_DISABLED), Unavailable.
        """


class Revocations(Protocol):
    """Credentials that are no longer good. Every process knows them all by heart and is told of new ones at once."""

    def is_revoked(self, *credentials: str, issued_at_s: float) -> bool:
        """Tell whether any of `credentials` was revoked after it was issued; costs no round trip.

        credentials: `token:<jti>`, `family:<id>`, `key:<id>`, `client:<client id>`.
        Raises: Unavailable (code REVOCATIONS_STALE): what we know is too old to let anybody in.
        """

    async def revoke(self, credential: str, expires_at_s: float) -> None:
        """Revoke what was issued under this name until now. expires_at_s: when it would have ended by itself.

        Raises: Unavailable.
        """


class TokenVerifier(Protocol):
    """Turns a bearer token into who it speaks for."""

    async def verify(self, token: str) -> Principal:
        """Return the caller. It waits only where an external provider has to be asked for its keys.

        Raises: Unauthorized, Unavailable (code REVOCATIONS_STALE).
        """


class RefreshState(StrEnum):
    """What a refresh token is worth. REUSED: it was rotated before; somebody else has the one that replaced it."""

    GOOD = "good"
    REUSED = "reused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshGrant:
    """What a refresh token stands for. family: all that replaced each other since the client asked for the first."""

    family: str
    client_id: str
    scopes: frozenset[str]
    issued_at_s: int
    expires_at_s: int
    state: RefreshState


class Grants(Protocol):
    """Refresh tokens, of which only the SHA-256 is known. Those of another tenant are not found."""

    async def start(self, client: ApiClient, scopes: frozenset[str], family: str, token_hash: bytes) -> None:
        """Keep a first token. family: a new UUID. Raises: Unavailable."""

    async def find(self, tenant: str, token_hash: bytes) -> RefreshGrant | None:
        """Return what the token stands for, or None. Raises: Unavailable."""

    async def rotate(self, client: ApiClient, token_hash: bytes, new_hash: bytes) -> RefreshState:
        """Replace a token that is GOOD, and tell what it was. Of any number of tries at once one finds it GOOD.

        Raises: Unavailable.
        """

    async def revoke(self, tenant: str, family: str) -> None:
        """End the family: its refresh tokens, and every access token issued from it, in all processes.

        Raises: Unavailable.
        """

    async def purge_expired(self) -> int:
        """Forget the families whose time is over and return how many there were. Raises: Unavailable."""


class Work(Protocol):
    """An open transaction that acts for one tenant. What belongs together is done within one `Work`."""

    @property
    def tenant(self) -> str:
        """Whose rows it sees and writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key to be made. expires_at_s: UTC epoch seconds; parent: id of the key it is made with."""

    owner_kind: str
    subject: str
    name: str
    scopes: frozenset[str]
    expires_at_s: float
    parent: str | None = None


class ApiKeys(Protocol):
    """API keys: verified from memory, kept per tenant. Ids of another tenant are not found."""

    async def verify(self, text: str) -> Principal:
        """Return who the key's text speaks for. Its scopes are the key's that its owner still has.

        Costs a look-up once a minute, else about a microsecond. Raises: Unauthorized, Unavailable.
        """

    def work(self, tenant: str) -> AbstractAsyncContextManager[Work]:
        """Open a transaction for `tenant`; it commits when left without an error. Raises: Unavailable."""

    async def page(self, tenant: str, *, after: str | None, limit: int) -> Sequence[ApiKey]:
        """Return keys in the order they were made, revoked and expired ones too. Raises: Unavailable."""

    async def create(self, work: Work, new: NewKey, secret: KeySecret) -> ApiKey:
        """Store a new key. Raises: Unavailable."""

    async def key(self, work: Work, key_id: str) -> ApiKey:
        """Return a key and hold it until the work is done. Raises: NotFound, Unavailable."""

    async def rotate(self, work: Work, key_id: str, secret: KeySecret, grace_s: int) -> ApiKey:
        """Give a key a new secret. The one before stays good for `grace_s`, 0 or at least 60; older ones do not.

        Raises: NotFound, Conflict (code KEY_ENDED) when it is revoked or has expired, Unavailable.
        """

    async def revoke(self, tenant: str, key_id: str) -> None:
        """Revoke a key and every key made with it, in all processes; again is no error.

        Raises: NotFound, Unavailable.
        """

    async def tenant_of(self, key_id: str) -> str:
        """Return whose key this is; for operators. Raises: NotFound, Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentRequest:
    """A request that must not be done twice. subject: who asks, with its kind; key: what the caller named it.

    fingerprint: SHA-256 of what is asked, so that the same key for something else is noticed.
    """

    tenant: str
    subject: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer as it will be given again."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Claim(Protocol):
    """The right to do one request, for as long as its lease."""

    def work(self) -> AbstractAsyncContextManager[ClaimedWork]:
        """Open a transaction for the claim's tenant in which the request is done and answered, both or neither.

        Raises: Conflict (code IDEMPOTENCY_LEASE_LOST) when somebody else has taken over, Unavailable.
        """

    async def complete(self, answer: StoredAnswer) -> None:
        """Keep the final answer of a request done outside `work`. Raises: Unavailable."""

    async def release(self) -> None:
        """Give the claim up, so that the request can be tried again at once. Raises: Unavailable."""


class ClaimedWork(Work, Protocol):
    """A transaction that ends with the request's answer."""

    async def answer(self, answer: StoredAnswer) -> None:
        """Keep the final answer within the transaction. Raises: Unavailable."""


class Idempotency(Protocol):
    """Requests that are done once however often they are sent."""

    async def claim(self, request: IdempotentRequest) -> Claim | StoredAnswer:
        """Return the right to do the request, or the answer it was given before.

        Raises:
            Conflict: it is being done right now (code IDEMPOTENCY_KEY_IN_USE).
            Invalid: the key was used for something else (code IDEMPOTENCY_KEY_REUSED).
            Unavailable.
        """

    async def purge_expired(self) -> int:
        """Forget the keys whose time is over and return how many there were. Raises: Unavailable."""


class LatestQuotes(Protocol):
    """The newest quote of each symbol: lossy by design, never the record of anything."""

    async def put(self, source: str, quotes: Mapping[str, bytes]) -> None:
        """Keep `quotes`, symbol to JSON. Raises: Unavailable."""

    async def get(self, source: str, symbols: Sequence[str] | None) -> Mapping[str, bytes]:
        """Return what is there of `symbols`, or all. Raises: Unavailable."""


class RateLimiter(Protocol):
    """Counts what callers do, for all processes together."""

    def try_take(self, caller: str, rates: Sequence[Rate]) -> Verdict | None:
        """Count one within all of `rates`, or refuse; None when that takes asking elsewhere, with `take`.

        caller: any text that names whom it counts for; only its hash leaves the process.
        """

    async def take(self, caller: str, rates: Sequence[Rate]) -> Verdict:
        """As `try_take`, and ask if need be: within a twentieth of a second, whatever is down."""


class JobQueue(Protocol):
    """Ask a worker and be told the answer without polling."""

    async def ask(self, function: str, request: Message, *, tenant: str, timeout_ms: int) -> Answer | str:
        """Enqueue and wait. Return the answer, or the job id when it outlasts `timeout_ms`.

        function: a row of `core.messages.jobs.JOBS`.
        Raises: the worker's own TickgateError, or Unavailable when the queue cannot be reached.
        """

    async def state(self, job_id: str, *, tenant: str) -> JobState:
        """Return where the job stands. Raises: NotFound (also for another tenant's), Unavailable."""

    async def served(self, queue: str) -> bool:
        """Tell whether a worker of this queue is alive. Raises: Unavailable."""


class QueueControl(Protocol):
    """Look at queues and at jobs from outside, and interfere."""

    async def standings(self) -> Sequence[QueueStanding]:
        """Return how every queue stands. Raises: Unavailable."""

    async def cancel(self, job_id: str, *, tenant: str) -> JobState:
        """End a job. One that waits is CANCELLED at once, one that runs as soon as its worker has heard of it.

        Raises: NotFound (also for another tenant's), Conflict (code JOB_ENDED), Unavailable.
        """

    async def put(self, job_id: str, queue: str, job: bytes) -> None:
        """Ask a job again, from now on under `job_id`. job: as a dead letter keeps it.

        Raises: Unavailable, Corrupt: it cannot be read.
        """

    async def buried(self, queue: str, count_max: int) -> Sequence[bytes]:
        """Return the oldest dead letters that wait for the ledger, encoded. Raises: Unavailable."""

    async def forget_buried(self, queue: str, letters: Sequence[bytes]) -> None:
        """Let go of dead letters the ledger holds now. Doing it twice changes nothing. Raises: Unavailable."""


class DeadLetters(Protocol):
    """Jobs that failed for good. tenant None: everybody's, the system's own too, for the operator only."""

    async def record(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them; one that is there already stays as it is. Raises: Unavailable."""

    async def page(self, tenant: str | None, before: str | None, count: int) -> Sequence[DeadLetter]:
        """Return up to `count`, the youngest first, older than the one with the id `before`. Raises: Unavailable."""

    async def one(self, letter_id: str, tenant: str | None) -> DeadLetter:
        """Return one. Raises: NotFound (also for another tenant's), Unavailable."""

    async def replay(
        self, letter_id: str, tenant: str | None, put: Callable[[DeadLetter], Awaitable[str]]
    ) -> DeadLetter:
        """Mark it replayed if `put`, which returns the new job's id, does not fail. At most one replay at a time.

        Raises: NotFound, Conflict (code DEAD_LETTER_REPLAYED), Unavailable, and what `put` raises.
        """

    async def purge(self, kept_days: int) -> int:
        """Delete those that failed more than `kept_days` ago, and return how many. Raises: Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How one queue is worked off. tries: starts of one job, killed workers' included; expiry_s: a job not started
    by then is not worth starting; keep_s: how long an answer nobody has fetched is kept.
    """

    name: str
    concurrency: int
    timeout_s: float
    tries: int
    expiry_s: float
    keep_s: float
    drain_s: float
    retry: RetryClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job asked once in every slot of `every_s` seconds of the queue's clock, however many workers there are.

    A slot nobody lived in is not made up for.
    """

    function: str
    queue: str
    every_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFunction:
    """A job function as arq knows it: `run(ctx, request, *, tenant, ...)`, request as plain decoded msgpack.

    ctx: `job_id`, `job_try`, and `progress(done, total=None, note="")`, which tells whoever polls the job.
    timeout_s, tries, retry: its own, where they differ from its queue's.
    """

    name: str
    run: Callable[..., Awaitable[Any]]
    timeout_s: float | None = None
    tries: int | None = None
    retry: RetryClass | None = None


class JobRunner(Protocol):
    """The worker's side of a queue."""

    async def run(
        self,
        queue: QueueLimits,
        functions: Sequence[JobFunction],
        report: Callable[..., ErrorReport],
        stop: asyncio.Event,
        schedules: Sequence[Schedule] = (),
    ) -> None:
        """Work the queue off until `stop`, then finish what runs; survive the queue's store going away.

        report: logs an exception once and says what its caller may know. schedules: this queue's.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStep:
    """One numbered step of a store's schema. checksum: SHA-256 of its text, so that an edited step is noticed."""

    number: int
    name: str
    sql: str
    checksum: str


class Schema(Protocol):
    """A store whose schema is brought forward in numbered steps, never back."""

    async def applied(self) -> Mapping[int, str]:
        """Return the checksum of every step applied, by number. Raises: Unavailable."""

    async def apply(self, step: SchemaStep) -> None:
        """Apply one step and note it. Raises: Unavailable."""
