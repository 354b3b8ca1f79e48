"""Streams of orders are woken by what is committed elsewhere, by their own tenant's alone, and miss nothing."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import redis

from core.infrastructure.central_hub import Hub, open_hub
from core.model.audit import AuditEvent
from core.settings import Settings
from gateway.trail_feed import BATCH, TrailFeed
from tests.engines import House, new_databases

WAITING_S_MAX = 20.0


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@dataclass
class Trail:
    """writer: of another process, so to speak: it has connections of its own. feed: the reading gateway's."""

    settings: Settings
    writer: Hub
    feed: TrailFeed
    reader: Hub

    async def write(self, tenant: str, *, fails: bool = False) -> None:
        async with self.writer["order_ledger"].work(tenant) as work:
            await self.writer["audit"].append(work, AuditEvent(type="order.told", actor="client:c"))
            if fails:
                raise LookupError

    def cut(self) -> None:
        """Kill every connection that is subscribed to something."""
        server = self.settings.redis
        with redis.Redis(server.host, server.port, password=server.password.reveal()) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


@pytest.fixture
async def trail(settings: Settings) -> AsyncIterator[Trail]:
    async with (
        open_hub(settings, {"order_ledger", "audit", "trail_news"}) as writer,
        open_hub(settings, {"audit", "trail_ears"}) as reader,
    ):
        writer["audit"].tells(writer["trail_news"].moved)
        feed = TrailFeed(reader["audit"], reader["trail_ears"])
        async with asyncio.timeout(WAITING_S_MAX):
            await writer["trail_news"].link.wait()
            await reader["trail_ears"].link.wait()
        yield Trail(settings, writer, feed, reader)


def a_tenant() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


async def test_a_commit_wakes_who_follows_its_tenant(trail: Trail) -> None:
    tenant = a_tenant()
    with trail.feed.follow(tenant) as bell:
        await trail.write(tenant)
        async with asyncio.timeout(WAITING_S_MAX):
            # Nothing but news rings it.
            await bell.wait()
        assert [one.seq for one in await trail.feed.read(tenant, 0)] == [1]


async def test_news_are_of_one_tenant_and_of_what_was_committed(trail: Trail) -> None:
    mine, failed, others = a_tenant(), a_tenant(), a_tenant()
    with (
        trail.feed.follow(mine) as bell,
        trail.feed.follow(failed) as silent,
        trail.feed.follow(others) as ringing,
    ):
        with pytest.raises(LookupError):
            await trail.write(failed, fails=True)
        await trail.write(others)
        async with asyncio.timeout(WAITING_S_MAX):
            await ringing.wait()
        # News come in the order in which they were told.
        assert not bell.is_set()
        assert not silent.is_set()


async def test_after_a_lost_connection_everybody_looks(trail: Trail) -> None:
    tenant = a_tenant()
    with trail.feed.follow(tenant) as bell:
        trail.cut()
        await trail.write(tenant)
        async with asyncio.timeout(WAITING_S_MAX):
            # Whether the news came before the cut, or there is a new connection since.
            await bell.wait()
        assert [one.seq for one in await trail.feed.read(tenant, 0)] == [1]


async def test_while_no_news_come_streams_look_by_themselves(trail: Trail) -> None:
    deaf = TrailFeed(trail.reader["audit"], Deaf())
    with deaf.follow("t") as bell:
        async with asyncio.timeout(WAITING_S_MAX):
            await deaf.wait(bell)
        assert not bell.is_set()


class Deaf:
    """Ears that hear nothing, as without Redis."""

    listening = False

    def heed(self, heard: object) -> None:
        """Never call it."""


async def test_a_page_is_read_once_for_all_who_ask_at_once(trail: Trail) -> None:
    tenant = a_tenant()
    await trail.write(tenant)
    first, second, other = await asyncio.gather(
        *(trail.feed.read(tenant, after) for after in (0, 0, 1)), return_exceptions=False
    )
    assert first is second
    assert [one.seq for one in first] == [1]
    assert list(other) == []


async def test_who_asks_behind_the_news_is_not_given_an_older_page(trail: Trail) -> None:
    tenant = a_tenant()
    with trail.feed.follow(tenant) as bell:
        early = asyncio.ensure_future(trail.feed.read(tenant, 0))
        await asyncio.sleep(0)
        await trail.write(tenant)
        async with asyncio.timeout(WAITING_S_MAX):
            await bell.wait()
        assert [one.seq for one in await trail.feed.read(tenant, 0)] == [1]
        await early


async def test_one_that_is_hung_up_on_does_not_take_the_page_from_others(trail: Trail) -> None:
    tenant = a_tenant()
    await trail.write(tenant)
    gone = asyncio.ensure_future(trail.feed.read(tenant, 0))
    stays = asyncio.ensure_future(trail.feed.read(tenant, 0))
    await asyncio.sleep(0)
    gone.cancel()
    assert [one.seq for one in await stays] == [1]


async def test_a_reader_finds_all_of_a_long_trail_in_its_order(trail: Trail) -> None:
    tenant, count = a_tenant(), BATCH + 20
    async with trail.writer["order_ledger"].work(tenant) as work:
        for _ in range(count):
            await trail.writer["audit"].append(work, AuditEvent(type="order.told", actor="client:c"))
    found: list[int] = []
    while page := await trail.feed.read(tenant, found[-1] if found else 0):
        found += [one.seq for one in page]
    assert found == list(range(1, count + 1))
