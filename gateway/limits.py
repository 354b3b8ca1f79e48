"""The gateway's limits: how often each class of routes may be called, by whom, and how much is done at once.

slowapi declares them, in its syntax and with its key function; the counting is the RateLimiter port's, because
slowapi's own engine asks Redis synchronously, once a request. A key is a caller and a class of routes, never a path:
/v1/jobs/1 and /v1/jobs/2 share one. The limits at once are each process' own.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from limits import RateLimitItem
from slowapi import Limiter
from starlette.requests import Request

from core.errors.exceptions import Misconfigured, RateLimited, Unavailable
from core.messages.jobs import Answer, JobState
from core.messages.message import Message
from core.model.addresses import NOBODY, network
from core.model.principals import Principal
from core.model.rates import Rate, Verdict
from core.ports.access import RateLimiter
from core.ports.jobs import JobQueue
from core.settings import LimitsSettings
from core.telemetry import metrics
from gateway.problems import Limited

FAILED: Final = "failed"
"""The class of requests whose credential was refused."""
UNKNOWN: Final = ""
"""No tenant has this name."""
LOOK_UPS_BY_ADDRESS_MAX: Final = 32
CLASSES: Final = ("public", "token", "read", "write", "export", FAILED)


def caller_of(request: Request) -> str:
    """Return whom a request counts for: the authenticated caller, otherwise the address."""
    principal: Principal | None = request.scope["state"].get("principal")
    if principal is not None:
        # What joins them is in none of them: names are printable.
        return f"{principal.kind}\n{principal.tenant}\n{principal.subject}"
    return address_of(request)


def share_of(request: Request) -> str:
    """Return whose part of the process a request takes: its tenant's; of all who show no credential together, one."""
    principal: Principal | None = request.scope["state"].get("principal")
    return principal.tenant if principal is not None else UNKNOWN


def address_of(request: Request) -> str:
    """Return the network a request comes from, or NOBODY. Never empty."""
    return network(request.client.host) if request.client else NOBODY


class _Declared(Limiter):
    """The limits of one class as slowapi holds them."""

    def items(self) -> list[RateLimitItem]:
        return [limit.limit for group in self._default_limits for limit in group]


def declared(settings: LimitsSettings) -> Mapping[str, Sequence[Rate]]:
    """Return every class' rates. Raises: Misconfigured: one is not written as slowapi writes limits."""
    return {group: _rates(group, getattr(settings, group)) for group in CLASSES}


def _rates(group: str, text: str) -> tuple[Rate, ...]:
    try:
        # Where it would count is said, or it would look for that in the environment.
        limiter = _Declared(
            caller_of, [text], key_style="endpoint", storage_uri="memory://", strategy="fixed-window"
        )
        rates = [Rate(group=group, count=item.amount, period_s=item.get_expiry()) for item in limiter.items()]
    except ValueError as e:
        raise Misconfigured(
            f"limits.{group} is no limit; write it as in 600/minute;50/second", code="BAD_SETTING"
        ) from e
    if not rates or any(rate.count < 1 or rate.period_s < 1 for rate in rates):
        raise Misconfigured(f"limits.{group} would let nobody in", code="BAD_SETTING")
    return tuple(rates)


class _Shares:
    """Counts what is under way by name. kind: of the names, for the measurement."""

    def __init__(self, kind: str, count_max: int) -> None:
        self._kind = kind
        self._count_max = count_max
        self._taken: dict[str, int] = {}

    def take(self, name: str) -> None:
        """Raises: RateLimited."""
        taken = self._taken.get(name, 0)
        if taken >= self._count_max:
            metrics.REFUSED_AT_ONCE.labels(self._kind).inc()
            raise RateLimited("too many of your requests at once", code="TOO_MANY_AT_ONCE")
        self._taken[name] = taken + 1

    def leave(self, name: str) -> None:
        left = self._taken[name] - 1
        if left:
            self._taken[name] = left
        else:
            del self._taken[name]


class Limits:
    """What the doors ask."""

    def __init__(self, settings: LimitsSettings, limiter: RateLimiter) -> None:
        self._settings = settings
        self._limiter = limiter
        self._rates = declared(settings)
        self._policies = {group: _policy(rates) for group, rates in self._rates.items()}
        self._at_once = 0
        self._by_caller = _Shares("caller", settings.at_once_by_caller_max)
        self._by_share = _Shares("tenant", settings.at_once_by_tenant_max)
        self._looking_up: dict[str, Counter[str]] = {}

    async def admit(self, request: Request, caller: str, group: str) -> None:
        """Count a request. Raises: Limited."""
        await self._count(request, caller, group)

    async def admit_failure(self, request: Request) -> None:
        """Count a refused credential, by address: a valid one from there is still let in. Raises: Limited."""
        await self._count(request, address_of(request), FAILED)

    def take_place(self) -> None:
        """Be one of the requests this process answers, until `leave_place`. Raises: Unavailable."""
        if self._at_once >= self._settings.at_once_max:
            metrics.REFUSED_AT_ONCE.labels("process").inc()
            raise Unavailable("too many requests at once; try again soon", code="OVERLOADED")
        self._at_once += 1

    def leave_place(self) -> None:
        self._at_once -= 1

    def take_place_of(self, caller: str, share: str) -> None:
        """Be one of the requests of one caller, and of its share, until `leave_place_of`. Raises: RateLimited."""
        self._by_caller.take(caller)
        try:
            self._by_share.take(share)
        except RateLimited:
            self._by_caller.leave(caller)
            raise

    def leave_place_of(self, caller: str, share: str) -> None:
        self._by_caller.leave(caller)
        self._by_share.leave(share)

    @contextmanager
    def looking_up(self, request: Request, credential: str) -> Iterator[None]:
        """Bound how many different credentials of one address are looked up at once. Raises: RateLimited.

        One credential is one, however many requests show it; guesses differ, and must not be all that is looked up.
        """
        address = address_of(request)
        looking = self._looking_up.setdefault(address, Counter())
        if len(looking) >= LOOK_UPS_BY_ADDRESS_MAX and credential not in looking:
            metrics.REFUSED_AT_ONCE.labels("address").inc()
            raise RateLimited("too many credentials of your address at once", code="TOO_MANY_AT_ONCE")
        looking[credential] += 1
        try:
            yield
        finally:
            looking[credential] -= 1
            if not looking[credential]:
                del looking[credential]
            if not looking:
                self._looking_up.pop(address, None)

    async def _count(self, request: Request, caller: str, group: str) -> None:
        rates = self._rates[group]
        verdict = self._limiter.try_take(caller, rates)
        if verdict is None:
            verdict = await self._limiter.take(caller, rates)
        request.scope["state"]["limit_headers"] = self._headers(group, verdict)
        if not verdict.allowed:
            metrics.RATE_LIMITED.labels(group).inc()
            raise Limited(verdict.retry_after_s)

    def _headers(self, group: str, verdict: Verdict) -> tuple[tuple[bytes, bytes], ...]:
        return (
            (b"ratelimit-limit", b"%d" % verdict.rate.count),
            (b"ratelimit-remaining", b"%d" % verdict.remaining),
            (b"ratelimit-reset", b"%d" % verdict.reset_s),
            (b"ratelimit-policy", self._policies[group]),
        )


def _policy(rates: Sequence[Rate]) -> bytes:
    return ", ".join(f"{rate.count};w={rate.period_s}" for rate in rates).encode()


class TenantQueue:
    """The JobQueue of a gateway process, with a limit on how many answers one tenant waits for in it."""

    def __init__(self, queue: JobQueue, waiting_max: int) -> None:
        self._queue = queue
        self._waiting_max = waiting_max
        self._waiting: dict[str, int] = {}

    async def ask(self, function: str, request: Message, *, tenant: str, timeout_ms: int) -> Answer | str:
        waiting = self._waiting.get(tenant, 0)
        if waiting >= self._waiting_max:
            metrics.REFUSED_AT_ONCE.labels("tenant").inc()
            raise RateLimited("too many questions of yours are waiting", code="TENANT_QUEUE_FULL")
        self._waiting[tenant] = waiting + 1
        try:
            return await self._queue.ask(function, request, tenant=tenant, timeout_ms=timeout_ms)
        finally:
            left = self._waiting[tenant] - 1
            if left:
                self._waiting[tenant] = left
            else:
                del self._waiting[tenant]

    async def state(self, job_id: str, *, tenant: str) -> JobState:
        return await self._queue.state(job_id, tenant=tenant)

    async def served(self, queue: str) -> bool:
        return await self._queue.served(queue)
