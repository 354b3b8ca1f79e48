"""The database worker's housekeeping, as scheduled jobs: it runs once, however many workers there are."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from core.errors.exceptions import Corrupt, Defect
from core.infrastructure.central_hub import Hub
from core.infrastructure.error_handler import report
from core.market.retention import enforce
from core.messages.dead_letters import DeadLetter
from core.messages.jobs import Answer
from core.model.retries import RetryClass
from core.ports.access import Grants
from core.ports.idempotency import Idempotency
from core.ports.jobs import DeadLetters, JobFunction, QueueControl
from core.ports.ticks import Retention, SourceRegistry
from core.settings import Settings
from workers.queues import QUEUES

log = structlog.get_logger(__name__)

MOVED_MAX: Final = 200
"""Dead letters written in one go."""
MOVES_MAX: Final = 50
DEAD_LETTERS_KEPT_DAYS: Final = 30
RETENTION_TIMEOUT_S: Final = 1_800.0
NOTHING: Final = Answer(content_type="application/json", body=b"null")

_decode: Final = msgspec.msgpack.Decoder(DeadLetter).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Housekeeping:
    """What is done by itself. ticks_days: the retention policy's."""

    retention: Retention
    registry: SourceRegistry
    control: QueueControl
    letters: DeadLetters
    idempotency: Idempotency
    grants: Grants
    ticks_days: int

    async def enforce_retention(self, _ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
        """Drop what the policy no longer keeps."""
        await enforce(self.retention, self.registry, self.ticks_days, time.time_ns() // 1_000_000)
        return NOTHING

    async def move_dead_letters(self, _ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
        """Carry dead letters from every queue into the ledger. One that is carried twice is there once."""
        for queue in QUEUES:
            for _ in range(MOVES_MAX):
                waiting = await self.control.buried(queue, MOVED_MAX)
                if not waiting:
                    break
                await self._record([letter for one in waiting if (letter := _read(one)) is not None])
                await self.control.forget_buried(queue, waiting)
                log.info("dead_letters.moved", queue=queue, letters=len(waiting))
        return NOTHING

    async def _record(self, letters: Sequence[DeadLetter]) -> None:
        try:
            await self.letters.record(letters)
        except Defect:
            # One the ledger cannot hold must not keep the others from it.
            for letter in letters:
                try:
                    await self.letters.record([letter])
                except Defect as e:
                    report(e, letter=letter.id, job=letter.job_id)

    async def purge_dead_letters(self, _ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
        """Delete the old ones."""
        if purged := await self.letters.purge(DEAD_LETTERS_KEPT_DAYS):
            log.info("dead_letters.purged", letters=purged)
        return NOTHING

    async def purge_idempotency_keys(self, _ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
        """Forget the keys, and the answers, whose time is over."""
        if purged := await self.idempotency.purge_expired():
            log.info("idempotency.purged", keys=purged)
        return NOTHING

    async def purge_grants(self, _ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
        """Forget families of refresh tokens whose time is over."""
        if purged := await self.grants.purge_expired():
            log.info("grants.purged", families=purged)
        return NOTHING


def functions(hub: Hub, settings: Settings) -> Sequence[JobFunction]:
    """Return the scheduled functions of the database queue."""
    keeping = Housekeeping(
        retention=hub["retention"],
        registry=hub["sources"],
        control=hub["queue_control"],
        letters=hub["dead_letters"],
        idempotency=hub["idempotency"],
        grants=hub["grants"],
        ticks_days=settings.retention.ticks_days,
    )
    return [
        # Whatever was away is asked again in the next slot.
        JobFunction(name="dead-letters.move", run=keeping.move_dead_letters),
        JobFunction(
            name="dead-letters.purge", run=keeping.purge_dead_letters, retry=RetryClass.WHEN_UNAVAILABLE
        ),
        JobFunction(
            name="idempotency.purge", run=keeping.purge_idempotency_keys, retry=RetryClass.WHEN_UNAVAILABLE
        ),
        JobFunction(name="grants.purge", run=keeping.purge_grants, retry=RetryClass.WHEN_UNAVAILABLE),
        JobFunction(
            name="retention.enforce",
            run=keeping.enforce_retention,
            timeout_s=RETENTION_TIMEOUT_S,
            retry=RetryClass.WHEN_UNAVAILABLE,
        ),
    ]


def _read(letter: bytes) -> DeadLetter | None:
    try:
        return _decode(letter)
    except msgspec.MsgspecError as e:
        report(Corrupt("a dead letter cannot be read", detail=str(e)))
        return None
