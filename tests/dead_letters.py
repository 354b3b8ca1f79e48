"""Make dead letters, and jobs nobody works off, for tests of what shows them."""

import asyncio
import secrets
import time

from core.adapters.postgres.dead_letters import open_dead_letters
from core.adapters.postgres.pool import open_pool
from core.adapters.redis.job_queue import open_job_queue
from core.errors.categories import Category
from core.messages.codec import encode
from core.messages.dead_letters import DeadLetter
from core.messages.jobs import Probe
from core.settings import Settings


def letter(
    tenant: str, function: str = "trading.probe", queue: str = "trading", **changes: object
) -> DeadLetter:
    """Return one that failed just now."""
    at_ms = int(time.time() * 1_000)
    job = {"f": function, "a": [{}], "k": {"tenant": tenant, "traceparent": ""}, "et": at_ms, "t": None}
    fields: dict[str, object] = {
        "id": f"{at_ms:011x}{secrets.token_hex(8)}",
        "job_id": "0123456789abcdef:1",
        "queue": queue,
        "function": function,
        "tenant": tenant,
        "job": encode(job),
        "attempts": 3,
        "category": Category.DEFECT,
        "code": "JOB_GAVE_UP",
        "public": "something broke",
        "fingerprint": "0" * 16,
        "traceparent": "",
        "first_failed_at_ms": at_ms - 5,
        "last_failed_at_ms": at_ms,
        **changes,
    }
    return DeadLetter(**fields)  # type: ignore[arg-type]


def bury(settings: Settings, *letters: DeadLetter) -> None:
    """Put them into the ledger."""

    async def record() -> None:
        async with (
            open_pool(settings, {}) as postgres,
            open_dead_letters(settings, {"postgres": postgres}) as store,
        ):
            await store.record(letters)

    asyncio.run(record())


def queued_job(settings: Settings, tenant: str) -> str:
    """Ask something of a queue without a worker and return the job's id."""

    async def ask() -> str:
        async with open_job_queue(settings, {}) as queue:
            await queue.commands.wait()
            job_id = await queue.ask("trading.probe", Probe(), tenant=tenant, timeout_ms=1)
            assert isinstance(job_id, str)
            return job_id

    return asyncio.run(ask())
