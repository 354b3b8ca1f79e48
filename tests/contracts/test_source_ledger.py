"""Sources in the ledger: what a token opens ends with it, whatever was under way, and tenants do not meet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from core.adapters.postgres.pool import Postgres
from core.adapters.postgres.sources import PostgresSources
from core.adapters.postgres.tenant_sources import PostgresTenantSources
from core.adapters.postgres.work import work_of
from core.errors.exceptions import Conflict, NotFound, Unauthorized
from core.infrastructure.central_hub import open_hub
from core.infrastructure.provisioning import NewSource, provision
from core.model.sources import SourceState, new_token
from core.model.ticks import Tally
from core.settings import Secret, Settings
from tests.engines import House, new_databases

HOLDER = "a-bridge"
TTL_S = 30.0


@dataclass
class Ledger:
    """Both ends of the sources: their tenants' and the bridges'."""

    kept: PostgresTenantSources
    known: PostgresSources
    postgres: Postgres

    async def made(self, tenant: str = "demo", label: str = "feed") -> tuple[SourceState, str]:
        token = new_token()
        async with work_of(self.postgres, tenant) as work:
            return await self.kept.create(work, label, "", token), token.text

    async def rotated(self, name: str, tenant: str = "demo") -> str:
        token = new_token()
        async with work_of(self.postgres, tenant) as work:
            await self.kept.rotate(work, name, token)
        return token.text


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_hub(settings, {"tenant_sources", "sources", "postgres"}) as hub:
        async with hub["postgres"].acquire() as connection:
            await connection.execute("truncate sources cascade")
        yield Ledger(hub["tenant_sources"], hub["sources"], hub["postgres"])


async def test_a_token_opens_its_source_until_it_is_replaced(settings: Settings) -> None:
    async with opened(settings) as ledger:
        state, token = await ledger.made()
        assert (await ledger.known.authenticate(state.name, token)).tenant == "demo"
        newer = await ledger.rotated(state.name)
        with pytest.raises(Unauthorized):
            await ledger.known.authenticate(state.name, token)
        assert (await ledger.known.authenticate(state.name, newer)).rotation == 2


@pytest.mark.parametrize("ends", ["rotated", "closed"])
async def test_a_token_that_ended_while_it_was_looked_at_gets_no_lease(settings: Settings, ends: str) -> None:
    async with opened(settings) as ledger:
        state, token = await ledger.made()
        source = await ledger.known.authenticate(state.name, token)
        await end(ledger, state.name, ends)
        with pytest.raises(Unauthorized):
            await ledger.known.take_lease(source, HOLDER, TTL_S)


@pytest.mark.parametrize("ends", ["rotated", "closed"])
async def test_a_lease_is_not_renewed_once_its_token_has_ended(settings: Settings, ends: str) -> None:
    async with opened(settings) as ledger:
        leases = []
        for label in ("ends", "stays"):
            state, token = await ledger.made(label=label)
            source = await ledger.known.authenticate(state.name, token)
            leases.append(await ledger.known.take_lease(source, HOLDER, TTL_S))
        await end(ledger, leases[0].source, ends)
        renewal = await ledger.known.renew_leases(leases, TTL_S)
        assert (renewal.renewed, renewal.ended) == (
            frozenset({leases[1].source}),
            frozenset({leases[0].source}),
        )


async def test_a_lease_that_somebody_else_took_has_not_ended_by_its_token(settings: Settings) -> None:
    async with opened(settings) as ledger:
        state, token = await ledger.made()
        source = await ledger.known.authenticate(state.name, token)
        lease = await ledger.known.take_lease(source, HOLDER, TTL_S)
        await ledger.known.release_lease(lease)
        await ledger.known.take_lease(source, "another", TTL_S)
        renewal = await ledger.known.renew_leases([lease], TTL_S)
        assert (renewal.renewed, renewal.ended) == (frozenset(), frozenset())


async def test_a_token_that_is_changed_by_hand_ends_the_one_before_as_well(settings: Settings) -> None:
    async with opened(settings) as ledger:
        state, token = await ledger.made()
        source = await ledger.known.authenticate(state.name, token)
        lease = await ledger.known.take_lease(source, HOLDER, TTL_S)
        async with ledger.postgres.acquire() as connection:
            await connection.execute(
                "update sources set token_hash = $2 where name = $1", state.name, "0" * 64
            )
        assert (await ledger.known.renew_leases([lease], TTL_S)).ended == {state.name}


async def test_what_is_known_of_a_connector_is_shown(settings: Settings) -> None:
    async with opened(settings) as ledger:
        state, token = await ledger.made()
        assert (state.connected, state.epoch, state.last_seen_at_ms) == (False, None, None)
        source = await ledger.known.authenticate(state.name, token)
        lease = await ledger.known.take_lease(source, HOLDER, TTL_S)
        await ledger.known.epoch_of(state.name, "first-install")
        assert await ledger.known.epoch_of(state.name, "second-install") == 2
        tally = Tally(symbol="EURUSD", day=1, rows=7, first_seq=1, last_seq=7, checksum=1)
        await ledger.known.record_tallies(state.name, 2, [tally])
        state = await ledger.kept.read("demo", state.name)
        assert (state.connected, state.epoch, state.install, state.last_seq) == (True, 2, "second-install", 7)
        await ledger.known.release_lease(lease)
        state = await ledger.kept.read("demo", state.name)
        assert not state.connected
        assert state.last_seen_at_ms is not None


async def test_a_tenant_has_a_bounded_number_of_sources(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.adapters.postgres.tenant_sources.OPEN_MAX", 2)
    async with opened(settings) as ledger:
        made = await asyncio.gather(*(ledger.made() for _ in range(5)), return_exceptions=True)
        refused = [one for one in made if isinstance(one, Conflict)]
        assert [one.code for one in refused] == ["TOO_MANY_SOURCES"] * 3
        await ledger.made("rival")
        (first, *_) = await ledger.kept.page("demo", after=None, limit=1)
        await ledger.kept.close("demo", first.name)
        await ledger.made()


async def test_closed_sources_count_among_all_a_tenant_ever_had(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.adapters.postgres.tenant_sources.EVER_MAX", 1)
    async with opened(settings) as ledger:
        state, _ = await ledger.made()
        await ledger.kept.close("demo", state.name)
        with pytest.raises(Conflict, match="TOO_MANY_SOURCES"):
            await ledger.made()


async def test_a_foreign_source_is_not_found_behind_either_wall(settings: Settings) -> None:
    async with opened(settings) as ledger:
        state, token = await ledger.made()
        for attempt in (
            lambda: ledger.kept.read("rival", state.name),
            lambda: ledger.kept.update("rival", state.name, "mine", expected=None),
            lambda: ledger.rotated(state.name, "rival"),
            lambda: ledger.kept.close("rival", state.name),
        ):
            with pytest.raises(NotFound, match="SOURCE_NOT_FOUND"):
                await attempt()
        assert await ledger.kept.page("rival", after=None, limit=10) == []
        assert await ledger.kept.read("demo", state.name) == state
        assert await ledger.known.authenticate(state.name, token)


async def test_a_source_is_never_provisioned_away_from_its_tenant(settings: Settings) -> None:
    async with opened(settings) as ledger:
        state, token = await ledger.made()
        with pytest.raises(Conflict, match="SOURCE_EXISTS"):
            await provision(settings, [], [NewSource(name=state.name, token=Secret("t"), tenant="rival")])
        assert (await ledger.known.authenticate(state.name, token)).tenant == "demo"


async def test_a_closed_source_that_is_provisioned_again_stays_closed(settings: Settings) -> None:
    async with opened(settings) as ledger:
        state, _ = await ledger.made()
        await ledger.kept.close("demo", state.name)
        await provision(settings, [], [NewSource(name=state.name, token=Secret("t"), tenant="demo")])
        with pytest.raises(Unauthorized):
            await ledger.known.authenticate(state.name, "t")


async def end(ledger: Ledger, name: str, how: str) -> None:
    if how == "rotated":
        await ledger.rotated(name)
    else:
        await ledger.kept.close("demo", name)
