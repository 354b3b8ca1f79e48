"""Idempotency-Key: done once however often it is sent, through two gateways, kills and lost leases included."""

import asyncio
import contextlib
import dataclasses
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.adapters.postgres.idempotency import LEASE_S, PostgresIdempotency
from core.adapters.postgres.pool import Postgres, open_pool
from core.adapters.postgres.sealing import seal, unseal
from core.errors.exceptions import (
    Conflict,
    Corrupt,
    Defect,
    Invalid,
)
from core.ports.idempotency import AnsweredBefore, Claim, IdempotentRequest, StoredAnswer
from core.settings import Settings
from gateway.catalog import ENDPOINTS
from gateway.routing import RateClass
from tests.engines import House, new_databases

ANSWER = StoredAnswer(status=201, headers={"content-type": "application/json"}, body=b'{"secret":"s3cr3t"}')


@pytest.fixture(scope="module")
def shared(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def settings(shared: Settings) -> Settings:
    """The module's databases, emptied: making new ones for every test takes longer than the tests."""
    async with open_pool(shared, {}) as postgres, postgres.acquire() as connection:
        await connection.execute("truncate idempotency_keys, api_keys")
    return shared


def request(**changes: Any) -> IdempotentRequest:
    fields: dict[str, Any] = {
        "tenant": "demo",
        "subject": "client:demo",
        "key": "8f14e45f-ceea-467f-9d1c-000000000001",
        "fingerprint": b"f" * 32,
    }
    return IdempotentRequest(**{**fields, **changes})


@contextlib.asynccontextmanager
async def ledger(settings: Settings, **limits: Any) -> AsyncIterator[tuple[PostgresIdempotency, Postgres]]:
    async with open_pool(settings, {}) as postgres:
        yield PostgresIdempotency(postgres, **{"kept_s": 3_600, **limits}), postgres


async def claimed(idempotency: PostgresIdempotency, **changes: Any) -> Claim:
    found = await idempotency.claim(request(**changes))
    assert not isinstance(found, StoredAnswer)
    return found


async def test_the_first_claims_the_second_waits_and_the_third_is_answered(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, _):
        claim = await claimed(idempotency)
        with pytest.raises(Conflict, match="IDEMPOTENCY_KEY_IN_USE"):
            await idempotency.claim(request())
        await claim.complete(ANSWER)
        assert await idempotency.claim(request()) == ANSWER


async def test_of_fifty_at_once_one_gets_the_claim(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, _):
        found = await asyncio.gather(
            *(idempotency.claim(request()) for _ in range(50)), return_exceptions=True
        )
        kinds = Counter(getattr(one, "code", type(one).__name__) for one in found)
        assert kinds == {"PostgresClaim": 1, "IDEMPOTENCY_KEY_IN_USE": 49}


@pytest.mark.parametrize("running", [True, False])
async def test_the_same_key_for_something_else_is_refused(settings: Settings, running: bool) -> None:
    async with ledger(settings) as (idempotency, _):
        claim = await claimed(idempotency)
        if not running:
            await claim.complete(ANSWER)
        with pytest.raises(Invalid, match="IDEMPOTENCY_KEY_REUSED"):
            await idempotency.claim(request(fingerprint=b"g" * 32))


@pytest.mark.parametrize("changes", [{"tenant": "rival"}, {"subject": "user:demo"}, {"key": "another-key"}])
async def test_a_key_belongs_to_its_tenant_and_subject(settings: Settings, changes: dict[str, str]) -> None:
    async with ledger(settings) as (idempotency, _):
        await (await claimed(idempotency)).complete(ANSWER)
        assert await claimed(idempotency, **changes)


async def test_a_released_key_is_free_at_once_even_for_something_else(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, _):
        await (await claimed(idempotency)).release()
        assert await claimed(idempotency, fingerprint=b"g" * 32)


async def test_a_claim_left_behind_is_taken_over_when_its_lease_has_run_out(settings: Settings) -> None:
    async with ledger(settings, lease_s=0.2) as (idempotency, _):
        left_behind = await claimed(idempotency)
        with pytest.raises(Conflict, match="IDEMPOTENCY_KEY_IN_USE"):
            await idempotency.claim(request())
        taken_over = await _claim_patiently(idempotency)
        await left_behind.complete(dataclasses.replace(ANSWER, body=b"too late"))
        await left_behind.release()
        await taken_over.complete(ANSWER)
        assert await idempotency.claim(request()) == ANSWER


async def test_effect_and_answer_commit_together_or_not_at_all(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, postgres):
        with contextlib.suppress(ZeroDivisionError):
            async with idempotency.work(request()) as work:
                await _write(work)
                await work.answer(ANSWER)
                raise ZeroDivisionError
        assert await _written(postgres) == 0
        await _done(idempotency)
        assert await _written(postgres) == 1
        assert await idempotency.claim(request()) == ANSWER


async def test_work_that_is_done_is_answered_and_not_done_again(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, postgres):
        await _done(idempotency)
        with pytest.raises(AnsweredBefore) as again:
            await _done(idempotency)
        assert again.value.answer == ANSWER
        assert await _written(postgres) == 1


async def test_of_fifty_at_once_one_does_the_work_and_nobody_waits_for_it(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, postgres):
        endings = await asyncio.gather(*(_done(idempotency) for _ in range(50)), return_exceptions=True)
        assert endings.count(None) == 1
        others = {type(ending).__name__ for ending in endings if ending is not None}
        assert others <= {"Conflict", "AnsweredBefore"}
        assert await _written(postgres) == 1


@pytest.mark.parametrize("fingerprint", [b"f" * 32, b"g" * 32])
async def test_while_the_work_is_open_the_key_is_in_use(settings: Settings, fingerprint: bytes) -> None:
    async with ledger(settings) as (idempotency, postgres):
        async with idempotency.work(request()) as work:
            await _write(work)
            with pytest.raises(Conflict, match="IDEMPOTENCY_KEY_IN_USE"):
                await _done(idempotency, fingerprint=fingerprint)
            await work.answer(ANSWER)
        assert await idempotency.claim(request()) == ANSWER
        assert await _written(postgres) == 1


async def test_work_that_was_looked_up_too_early_leaves_nothing_beside_the_answer_that_is_there(
    settings: Settings,
) -> None:
    async with ledger(settings) as (idempotency, postgres):
        with pytest.raises(AnsweredBefore):
            await _overtaken(idempotency)
        assert await _written(postgres) == 0
        assert await idempotency.claim(request()) == ANSWER


async def test_work_is_refused_for_something_else_and_where_a_claim_holds(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, _):
        claim = await claimed(idempotency)
        with pytest.raises(Conflict, match="IDEMPOTENCY_KEY_IN_USE"):
            await _done(idempotency)
        await claim.complete(ANSWER)
        with pytest.raises(Invalid, match="IDEMPOTENCY_KEY_REUSED"):
            await _done(idempotency, fingerprint=b"g" * 32)


@pytest.mark.parametrize("column", ["lease_expires_at", "expires_at"])
async def test_work_takes_over_what_has_run_out(settings: Settings, column: str) -> None:
    async with ledger(settings) as (idempotency, postgres):
        left_behind = await claimed(idempotency)
        async with postgres.acquire() as connection:
            await connection.execute(f"update idempotency_keys set {column} = now() - interval '1 s'")
        await _done(idempotency)
        await left_behind.complete(dataclasses.replace(ANSWER, body=b"too late"))
        assert await idempotency.claim(request()) == ANSWER


async def test_work_without_an_answer_is_a_defect_and_changes_nothing(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, postgres):
        with pytest.raises(Defect, match="WORK_WITHOUT_ANSWER"):
            async with idempotency.work(request()) as work:
                await _write(work)
        assert await _written(postgres) == 0


async def test_the_ledger_can_read_neither_key_nor_answer(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, postgres):
        await (await claimed(idempotency)).complete(ANSWER)
        async with postgres.acquire() as connection:
            row = await connection.fetchrow("select * from idempotency_keys")
        assert b"s3cr3t" not in row["answer"]
        assert request().key not in str(tuple(row))


@pytest.mark.parametrize("changes", [{"key": "another-key"}, {"tenant": "rival"}, {"fingerprint": b"g" * 32}])
def test_a_sealed_answer_opens_only_where_it_was_sealed(changes: dict[str, Any]) -> None:
    sealed = seal(ANSWER, request())
    assert unseal(sealed, request()) == ANSWER
    assert seal(ANSWER, request()) != sealed
    with pytest.raises(Corrupt):
        unseal(sealed, request(**changes))
    with pytest.raises(Corrupt):
        unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), request())


async def test_what_has_expired_is_free_again_and_purged(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, postgres):
        await (await claimed(idempotency, key="expired-1")).complete(ANSWER)
        await (await claimed(idempotency, key="expired-2")).complete(ANSWER)
        async with postgres.acquire() as connection:
            await connection.execute("update idempotency_keys set expires_at = now() - interval '1 s'")
        again = await claimed(idempotency, key="expired-1", fingerprint=b"g" * 32)
        assert await idempotency.purge_expired() == 1
        await again.complete(ANSWER)
        assert await idempotency.purge_expired() == 0


def test_no_idempotent_route_outlasts_its_lease() -> None:
    assert [e for e in ENDPOINTS if e.idempotent and e.deadline_s >= LEASE_S] == []


def test_every_post_that_changes_something_demands_a_key() -> None:
    careless = [e for e in ENDPOINTS if e.method == "POST" and not e.idempotent]
    # A search is a question with a body; what it may ask for is a reader's scope and a reader's rate.
    changing = [e for e in careless if e.rate is not RateClass.READ or not str(e.access).endswith(":read")]
    assert [e.path for e in changing if not e.path.startswith("/oauth/")] == []


async def _claim_patiently(idempotency: PostgresIdempotency) -> Claim:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(Conflict):
                return await claimed(idempotency)
            await asyncio.sleep(0.02)


async def _done(idempotency: PostgresIdempotency, **changes: Any) -> None:
    async with idempotency.work(request(**changes)) as work:
        await _write(work)
        await work.answer(ANSWER)


async def _overtaken(idempotency: PostgresIdempotency) -> None:
    async with idempotency.work(request()) as work:
        await _write(work)
        # As if it had committed between this one's look and its lock: a claim's answer knows of no lock.
        await (await claimed(idempotency)).complete(ANSWER)
        await work.answer(dataclasses.replace(ANSWER, body=b"another"))


async def _write(work: Any) -> None:
    await work.connection.execute(
        "insert into api_keys (id, tenant, owner_kind, subject, name, scopes, prefix, secret_hash, expires_at)"
        " values (gen_random_uuid(), 'demo', 'client', 'demo', 'k', '{}', $1, $2, now() + interval '1 day')",
        uuid.uuid4().hex[:12],
        b"h" * 32,
    )


async def _written(postgres: Postgres) -> int:
    async with postgres.acquire() as connection:
        return int(await connection.fetchval("select count(*) from api_keys"))
