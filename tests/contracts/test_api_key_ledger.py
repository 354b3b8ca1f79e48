"""API keys in the ledger and from memory: what is remembered, for how long, and what ends with what."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.adapters.postgres.api_keys import PostgresApiKeys
from core.adapters.postgres.key_use import KeyUse
from core.adapters.postgres.key_verification import KeyVerifier
from core.adapters.postgres.pool import open_pool
from core.adapters.postgres.revocations import CLOCK_SKEW_S_MAX, PostgresRevocations
from core.errors.exceptions import Conflict, NotFound, Unauthorized, Unavailable
from core.infrastructure.provisioning import NewClient, provision, rotate_client_secret
from core.model.keys import new_secret
from core.model.principals import PrincipalKind, Scope
from core.ports.access import NewKey
from core.settings import Secret, Settings
from tests.engines import House, new_databases


@pytest.fixture(scope="module")
def shared(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def settings(shared: Settings) -> Settings:
    """The module's databases, emptied: making new ones for every test takes longer than the tests."""
    async with open_pool(shared, {}) as postgres, postgres.acquire() as connection:
        await connection.execute("truncate api_keys, api_clients, revocations cascade")
    return shared


@contextlib.asynccontextmanager
async def adapter(
    settings: Settings, **limits: float
) -> AsyncIterator[tuple[PostgresApiKeys, PostgresRevocations]]:
    async with open_pool(settings, {}) as postgres:
        revocations = PostgresRevocations(postgres, settings.postgres)
        use = KeyUse(postgres, **limits)
        keys = PostgresApiKeys(postgres, KeyVerifier(postgres, revocations), use)
        async with revocations.follow(), use.noting():
            yield keys, revocations


async def stored_key(keys: PostgresApiKeys, settings: Settings, **changes: Any) -> tuple[str, str]:
    """Return id and secret of a key of the client `demo`, which may read keys and the market."""
    client = NewClient(
        client_id="demo", secret=Secret("s"), tenant="demo", scopes=("keys:read", "market:read")
    )
    await provision(settings, [client], [])
    secret = new_secret()
    fields: dict[str, Any] = {
        "owner_kind": PrincipalKind.CLIENT,
        "subject": "demo",
        "name": "k",
        "scopes": frozenset({"keys:read"}),
        "expires_at_s": time.time() + 600,
    }
    async with keys.work("demo") as work:
        key = await keys.create(work, NewKey(**{**fields, **changes}), secret)
    return key.id, secret.text


async def test_a_key_speaks_for_its_owner(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        key_id, secret = await stored_key(keys, settings)
        caller = await keys.verify(secret)
        assert (caller.subject, caller.tenant, caller.kind) == ("demo", "demo", PrincipalKind.CLIENT)
        assert (caller.credential, caller.scopes) == (f"key:{key_id}", {Scope.KEYS_READ})


async def test_a_users_key_never_speaks_for_a_client_of_the_same_name(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        _, secret = await stored_key(keys, settings, owner_kind=PrincipalKind.USER)
        assert (await keys.verify(secret)).kind is PrincipalKind.USER


async def test_a_key_loses_the_scopes_its_owner_loses(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        _, secret = await stored_key(keys, settings, scopes=frozenset({"keys:read", "market:read"}))
        less = NewClient(client_id="demo", secret=Secret("s"), tenant="demo", scopes=("market:read",))
        await provision(settings, [less], [])
        assert (await keys.verify(secret)).scopes == {Scope.MARKET_READ}


async def test_a_remembered_key_costs_no_question_to_the_ledger(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        _, secret = await stored_key(keys, settings)
        first = await keys.verify(secret)
        await keys._postgres.pool.close()
        assert await keys.verify(secret) is first


async def test_nobody_gets_in_while_revocations_are_not_known(settings: Settings) -> None:
    async with adapter(settings) as (keys, revocations):
        _, secret = await stored_key(keys, settings)
        await keys.verify(secret)
        revocations._knowledge_s_max = -1.0
        with pytest.raises(Unavailable, match="REVOCATIONS_STALE"):
            await keys.verify(secret)


async def test_a_key_whose_client_is_gone_is_refused(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        _, secret = await stored_key(keys, settings, subject="never-there")
        with pytest.raises(Unauthorized):
            await keys.verify(secret)


async def test_when_a_key_was_last_used_is_noted_in_the_background(settings: Settings) -> None:
    async with adapter(settings, noted_every_s=0.05) as (keys, _):
        _, secret = await stored_key(keys, settings)
        used_at_ms = time.time() * 1_000
        await keys.verify(secret)
        async with asyncio.timeout(10):
            while (key := (await keys.page("demo", after=None, limit=1))[0]).last_used_at_ms is None:
                await asyncio.sleep(0.02)
        assert abs(key.last_used_at_ms - used_at_ms) < 1_000


async def test_the_last_use_is_noted_when_the_process_stops(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        _, secret = await stored_key(keys, settings)
        await keys.verify(secret)
    async with adapter(settings) as (keys, _):
        assert (await keys.page("demo", after=None, limit=1))[0].last_used_at_ms is not None


async def test_a_key_revoked_by_hand_in_the_ledger_ends_too(settings: Settings) -> None:
    async with adapter(settings) as (keys, revocations):
        key_id, secret = await stored_key(keys, settings)
        await keys.verify(secret)
        async with keys._postgres.acquire() as connection:
            await connection.execute("update api_keys set revoked_at = now()")
        async with asyncio.timeout(1):
            while not revocations.is_revoked(f"key:{key_id}", issued_at_s=0):
                await asyncio.sleep(0.005)
        with pytest.raises(Unauthorized):
            await keys.verify(secret)


async def test_a_tenant_has_a_bounded_number_of_keys(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.adapters.postgres.api_keys.KEYS_MAX", 1)
    async with adapter(settings) as (keys, _):
        key_id, _ = await stored_key(keys, settings)
        with pytest.raises(Exception, match="TOO_MANY_KEYS"):
            await stored_key(keys, settings)
        await keys.revoke("demo", key_id)
        await stored_key(keys, settings)


async def test_a_foreign_key_is_not_found_behind_either_wall(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        key_id, _ = await stored_key(keys, settings)
        with pytest.raises(NotFound):
            await keys.revoke("rival", key_id)
        with pytest.raises(NotFound):
            async with keys.work("rival") as work:
                await keys.rotate(work, key_id, new_secret(), 0)
        assert await keys.page("rival", after=None, limit=10) == []


async def test_a_flood_of_made_up_keys_leaves_connections_for_others(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        flood = [asyncio.create_task(keys.verify(new_secret().text)) for _ in range(400)]
        async with asyncio.timeout(5), keys.work("demo") as work:
            assert await work.connection.fetchval("select 1") == 1  # type: ignore[attr-defined]
        refused = await asyncio.gather(*flood, return_exceptions=True)
        assert {getattr(error, "code", error) for error in refused} == {"INVALID_KEY", "KEY_LOOK_UPS_BUSY"}
        assert keys._verifier._looking == 0


async def test_a_key_that_is_being_made_while_its_parent_is_revoked_does_not_survive(
    settings: Settings,
) -> None:
    async with adapter(settings) as (keys, _):
        root, _ = await stored_key(keys, settings)
        child, _ = await stored_key(keys, settings, parent=root)
        secret = new_secret()
        new = NewKey(
            owner_kind="client",
            subject="demo",
            name="late",
            scopes=frozenset({"keys:read"}),
            expires_at_s=time.time() + 600,
            parent=child,
        )
        async with keys.work("demo") as work:
            await keys.create(work, new, secret)
            revoking = asyncio.create_task(keys.revoke("demo", root))
            async with asyncio.timeout(10):
                while not await work.connection.fetchval(  # type: ignore[attr-defined]
                    "select count(*) from pg_locks where not granted and pid <> pg_backend_pid()"
                ):
                    await asyncio.sleep(0.01)
        await revoking
        with pytest.raises(Unauthorized):
            await keys.verify(secret.text)


async def test_a_revoked_key_makes_no_other(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        root, _ = await stored_key(keys, settings)
        await keys.revoke("demo", root)
        with pytest.raises(Conflict, match="KEY_ENDED"):
            await stored_key(keys, settings, parent=root)


async def test_what_is_remembered_is_asked_again_after_its_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.adapters.postgres.key_verification.CACHED_S_MAX", 0.0)
    async with adapter(settings) as (keys, _):
        _, secret = await stored_key(keys, settings)
        await keys.verify(secret)
        await keys._postgres.pool.close()
        with pytest.raises(Unavailable):
            await keys.verify(secret)


async def test_only_so_many_keys_are_remembered(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.adapters.postgres.key_verification.CACHED_KEYS_MAX", 2)
    async with adapter(settings) as (keys, _):
        for _ in range(4):
            await keys.verify((await stored_key(keys, settings))[1])
        assert len(keys._verifier._verified) == 2


async def test_a_key_that_was_being_made_while_its_client_was_revoked_is_no_good(settings: Settings) -> None:
    async with adapter(settings) as (keys, _):
        await stored_key(keys, settings)
        secret = new_secret()
        new = NewKey(
            owner_kind=PrincipalKind.CLIENT,
            subject="demo",
            name="late",
            scopes=frozenset({"keys:read"}),
            expires_at_s=time.time() + 600,
        )
        async with keys.work("demo") as work:
            await keys.create(work, new, secret)
            # It cannot see the key, which is not committed yet.
            await rotate_client_secret(settings, "demo", revoke=True)
        await asyncio.sleep(CLOCK_SKEW_S_MAX)
        with pytest.raises(Unauthorized):
            await keys.verify(secret.text)
