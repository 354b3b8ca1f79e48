"""The `RateLimiter` port on Redis: a sliding-window counter shared by all processes, leased in batches.

A process takes tokens from the shared counter with one INCRBY and spends them without asking again; what exceeded the
limit is given back. The counter is never below what was granted, so all processes together never admit more than the
limit in a window while Redis answers. Unused leases are lost with their window: they make a limit stricter, by at most
a lease a process.

Redis that takes longer than `limits.answer_ms_max` counts as away. Then each process counts for itself: the limit
becomes the limit times the processes, until Redis answers in time again.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import hiredis
import structlog

from core.adapters.redis.connection import Command, Lost
from core.adapters.redis.link import Link, running
from core.errors.exceptions import Unavailable
from core.model.rates import Rate, Verdict
from core.settings import Settings
from core.telemetry import metrics

log = structlog.get_logger(__name__)

AWAY_S: Final = 0.5
"""After this, Redis is tried again, in the background."""
LEASES_A_WINDOW: Final = 20
BUCKETS_MAX: Final = 100_000
SHARED_BUCKETS: Final = 64
"""Newcomers share these while Redis is away and memory is full: to forget a count would be to reset it."""
KEEP_PERIODS: Final = 3
LOG_INTERVAL_S: Final = 10.0
PROBE_KEY: Final = "tickgate:rate:probe"


class _Bucket:
    """What one caller has of one rate in one window. have: leased and unspent; used: admitted here."""

    __slots__ = (
        "blocked_until_s",
        "have",
        "left",
        "name",
        "pending",
        "rate",
        "used",
        "used_before",
        "waiting",
        "window",
    )

    def __init__(self, name: str, rate: Rate, window: int) -> None:
        self.name = name
        self.rate = rate
        self.window = window
        self.pending: asyncio.Task[None] | None = None
        self.have = self.left = self.used = self.used_before = self.waiting = 0
        self.blocked_until_s = 0.0

    def roll(self, window: int) -> None:
        self.used_before = self.used if window == self.window + 1 else 0
        self.window = window
        self.have = self.left = self.used = 0
        self.blocked_until_s = 0.0
        # An answer about the old window may still come; it is ignored, and nobody waits for it.
        self.pending = None

    def local_room(self, at_s: float) -> int:
        return self.rate.count - self.rate.carried(self.used_before, at_s) - self.used

    def key(self, window: int) -> str:
        # The braces keep both windows on one shard.
        return f"tickgate:rate:{{{self.name}}}:{self.rate.group}:{self.rate.period_s}:{window}"


class RedisRateLimiter:
    """See the module. answer_s_max: the longest anybody waits for Redis here, the next ones do not wait at all;
    now: UTC epoch seconds.
    """

    def __init__(
        self,
        link: Link,
        answer_s_max: float,
        now: Callable[[], float] = time.time,
        buckets_max: int = BUCKETS_MAX,
    ) -> None:
        self._link = link
        self._answer_s_max = answer_s_max
        self._now = now
        self._buckets_max = buckets_max
        self._buckets: dict[tuple[str, Rate], _Bucket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._away = False
        self._try_at_s = 0.0
        self._logged_at_s = -LOG_INTERVAL_S

    @property
    def alone(self) -> bool:
        """Whether Redis is away and this process counts for itself."""
        return self._away

    def try_take(self, caller: str, rates: Sequence[Rate]) -> Verdict | None:
        at_s = self._now()
        if self._away:
            self._look_for_redis()
        buckets = [self._bucket(caller, rate, at_s) for rate in rates]
        unknown = False
        for bucket in buckets:
            if bucket.have > 0:
                continue
            if at_s < bucket.blocked_until_s:
                return self._refusal(bucket, at_s)
            if not self._away:
                unknown = True
            elif bucket.local_room(at_s) <= 0:
                bucket.blocked_until_s = bucket.rate.next_room_s(bucket.used_before, at_s)
                return self._refusal(bucket, at_s)
        if unknown:
            return None
        for bucket in buckets:
            self._spend(bucket, at_s)
        return self._admission(buckets, at_s)

    async def take(self, caller: str, rates: Sequence[Rate]) -> Verdict:
        deadline_s = time.monotonic() + self._answer_s_max
        while (verdict := self.try_take(caller, rates)) is None:
            at_s = self._now()
            short = [b for b in (self._bucket(caller, rate, at_s) for rate in rates) if b.have <= 0]
            for bucket in short:
                bucket.waiting += 1
            try:
                leases = [self._lease(bucket) for bucket in short]
                timeout_s = max(0.0, deadline_s - time.monotonic())
                _, late = await asyncio.wait(leases, timeout=timeout_s) if leases else ((), ())
            finally:
                for bucket in short:
                    bucket.waiting -= 1
            if late or time.monotonic() >= deadline_s:
                self._lose_redis("no answer in time")
        return verdict

    def _bucket(self, caller: str, rate: Rate, at_s: float) -> _Bucket:
        window = rate.window(at_s)
        bucket = self._buckets.get((caller, rate))
        if bucket is None:
            return self._new_bucket(caller, rate, window)
        if bucket.window != window:
            bucket.roll(window)
            # The table stays in the order of last windows, for forgetting.
            self._buckets[(caller, rate)] = self._buckets.pop((caller, rate))
        return bucket

    def _new_bucket(self, caller: str, rate: Rate, window: int) -> _Bucket:
        if len(self._buckets) >= self._buckets_max:
            oldest_key = next(iter(self._buckets))
            oldest = self._buckets[oldest_key]
            expired = oldest.window + 1 < oldest.rate.window(self._now())
            if not (expired or not self._away):
                return self._shared_bucket(caller, rate, window)
            # While Redis is there it remembers: an exhausted caller that comes back is exhausted still.
            del self._buckets[oldest_key]
        bucket = self._buckets[(caller, rate)] = _Bucket(_hashed(caller), rate, window)
        return bucket

    def _shared_bucket(self, caller: str, rate: Rate, window: int) -> _Bucket:
        name = f"shared {int(_hashed(caller)[:8], 16) % SHARED_BUCKETS}"
        bucket = self._buckets.get((name, rate))
        if bucket is None:
            bucket = self._buckets[(name, rate)] = _Bucket(_hashed(name), rate, window)
        elif bucket.window != window:
            bucket.roll(window)
        return bucket

    def _spend(self, bucket: _Bucket, at_s: float) -> None:
        bucket.used += 1
        if bucket.have > 0:
            bucket.have -= 1
        size = _lease_size(bucket.rate)
        if size > 1 and bucket.have <= size // 4 and bucket.left > 0 and not self._away:
            self._lease(bucket)

    def _lease(self, bucket: _Bucket) -> asyncio.Task[None]:
        if bucket.pending is None:
            task = asyncio.create_task(self._ask(bucket, bucket.window))
            bucket.pending = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return bucket.pending

    async def _ask(self, bucket: _Bucket, window: int) -> None:
        asked = min(bucket.rate.count, max(_lease_size(bucket.rate), bucket.waiting))
        key, keep_s = bucket.key(window), bucket.rate.period_s * KEEP_PERIODS
        try:
            total, _, previous = await self._link.get().ask(
                ("INCRBY", key, asked), ("EXPIRE", key, keep_s), ("GET", bucket.key(window - 1))
            )
        except (Unavailable, Lost, hiredis.ReplyError) as e:
            self._lose_redis(str(e))
            return
        finally:
            if bucket.window == window:
                bucket.pending = None
        self._receive(bucket, window, asked, int(total), max(0, int(previous or 0)))

    def _receive(self, bucket: _Bucket, window: int, asked: int, total: int, previous: int) -> None:
        at_s, rate = self._now(), bucket.rate
        # Too late for its window: none of it is used, and all of it may go back.
        current = bucket.window == window == rate.window(at_s)
        granted = rate.granted(asked, total, previous, at_s) if current else 0
        if current:
            # What it admitted while it counted alone is not in the shared count.
            granted = min(granted, max(0, rate.count - bucket.used - bucket.have))
        if granted < asked:
            self._give_back(bucket.key(window), asked - granted, rate.period_s * KEEP_PERIODS)
        if not current:
            return
        bucket.have += granted
        bucket.left = max(0, rate.count - rate.carried(previous, at_s) - (total - asked) - granted)
        if granted == 0 and bucket.have == 0:
            bucket.blocked_until_s = rate.next_room_s(previous, at_s)

    def _give_back(self, key: str, count: int, keep_s: int) -> None:
        commands: tuple[Command, ...] = (("DECRBY", key, count), ("EXPIRE", key, keep_s))
        try:
            self._link.get().send(*commands)
        except Unavailable as e:
            log.debug("limiter.cannot_give_back", error=str(e))

    def _lose_redis(self, reason: str) -> None:
        self._try_at_s = time.monotonic() + AWAY_S
        if self._away:
            return
        self._away = True
        metrics.LIMITER_ALONE.set(1)
        self._log("limiter.counts_alone", reason=reason)

    def _look_for_redis(self) -> None:
        if time.monotonic() < self._try_at_s:
            return
        self._try_at_s = time.monotonic() + AWAY_S
        task = asyncio.create_task(self._probe())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self) -> None:
        """Close the gap once Redis takes a write in time: one that only reads could not count."""
        try:
            async with asyncio.timeout(self._answer_s_max):
                await self._link.get().ask(("SET", PROBE_KEY, "1", "EX", 60))
        except (TimeoutError, Unavailable, Lost, hiredis.ReplyError):
            return
        self._away = False
        metrics.LIMITER_ALONE.set(0)
        self._log("limiter.counts_shared")

    def _log(self, event: str, **fields: str) -> None:
        # Redis at the edge of the time limit would say both many times a second.
        if time.monotonic() - self._logged_at_s >= LOG_INTERVAL_S or event == "limiter.counts_shared":
            self._logged_at_s = time.monotonic()
            log.warning(event, **fields)

    def _admission(self, buckets: Sequence[_Bucket], at_s: float) -> Verdict:
        tightest = min(buckets, key=self._remaining)
        return Verdict(True, tightest.rate, self._remaining(tightest), _reset_s(tightest.rate, at_s))

    def _remaining(self, bucket: _Bucket) -> int:
        if self._away:
            return max(0, bucket.rate.count - bucket.used)
        return bucket.have + bucket.left

    def _refusal(self, bucket: _Bucket, at_s: float) -> Verdict:
        wait_s = max(1, math.ceil(bucket.blocked_until_s - at_s))
        return Verdict(False, bucket.rate, 0, _reset_s(bucket.rate, at_s), wait_s)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _lease_size(rate: Rate) -> int:
    return max(1, rate.count // LEASES_A_WINDOW)


def _reset_s(rate: Rate, at_s: float) -> int:
    return math.ceil((rate.window(at_s) + 1) * rate.period_s - at_s)


def _hashed(caller: str) -> str:
    return hashlib.blake2b(caller.encode(), digest_size=16).hexdigest()


@asynccontextmanager
async def open_rate_limiter(
    settings: Settings, _services: Mapping[str, Any]
) -> AsyncIterator[RedisRateLimiter]:
    """Open the limiter. An absent Redis is no reason not to start: it counts alone until then."""
    link = Link(settings.redis, "limits")
    limiter = RedisRateLimiter(link, settings.limits.answer_ms_max / 1_000)
    async with running(link):
        try:
            yield limiter
        finally:
            await limiter.close()
