"""The connection to ArangoDB: who is let in, what is refused, that nothing waits for ever, and who writes alone."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator

import msgspec
import pytest
from arango.database import Database, StandardDatabase

from core.adapters.arango import records, topology
from core.adapters.arango.client import Arango, connect
from core.adapters.arango.topology import ArangoTopology
from core.errors.exceptions import Defect, Misconfigured, TickgateError, Unavailable
from core.infrastructure.central_hub import open_hub
from core.settings import ArangoSettings, Secret, Settings
from tests.topology_checks import DEPTH, FLOWS, SERVICES, far, filled, ids, service, version
from tests.topology_servers import bring_forward, conflict, double_process, running_double

PATIENCE_S = 6.0
"""More than any bound under test, with room for a busy machine."""


@pytest.fixture(scope="module")
def double() -> Iterator[ArangoSettings]:
    with running_double() as settings:
        asyncio.run(bring_forward(Settings(arango=settings)))
        yield settings


def but(settings: ArangoSettings, **changes: object) -> ArangoSettings:
    return msgspec.structs.replace(settings, **changes)


async def refusal(settings: ArangoSettings) -> TickgateError:
    started = time.monotonic()
    with pytest.raises(TickgateError) as refused:
        async with open_hub(Settings(arango=settings), {"arango"}):
            pass
    assert time.monotonic() - started < PATIENCE_S
    return refused.value


async def test_the_right_password_is_let_in(double: ArangoSettings) -> None:
    async with open_hub(Settings(arango=double), {"topology"}) as hub:
        await hub["topology"].ping()


async def test_what_only_an_operator_can_mend_is_a_matter_of_settings(double: ArangoSettings) -> None:
    with running_double("--version", "3.10.9") as old:
        refused = [
            await refusal(wrong)
            for wrong in (
                but(double, password=Secret("another")),
                but(double, user="somebody"),
                but(double, database="another"),
                old,
            )
        ]
    assert {type(one) for one in refused} == {Misconfigured}
    codes = ["TOPOLOGY_AUTH", "TOPOLOGY_AUTH", "TOPOLOGY_NO_DATABASE", "TOPOLOGY_TOO_OLD"]
    assert [one.code for one in refused] == codes
    assert all("password" not in one.detail for one in refused)


async def test_a_schema_that_is_not_there_is_waited_for_not_worked_with() -> None:
    with running_double() as empty:
        refused = await refusal(empty)
    assert (type(refused), refused.code) == (Unavailable, "SCHEMA_OLDER")


async def test_nobody_there_is_said_at_once(double: ArangoSettings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused = await refusal(but(double, port=taken.getsockname()[1]))
    assert (type(refused), refused.code) == (Unavailable, "TOPOLOGY_UNAVAILABLE")


async def test_a_server_that_accepts_and_is_silent_keeps_nobody(double: ArangoSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        refused = await refusal(but(double, port=port, connect_timeout_s=0.5, query_timeout_s=0.5))
    assert (type(refused), refused.code) == (Unavailable, "TOPOLOGY_UNAVAILABLE")


@contextlib.contextmanager
def stopped() -> Iterator[tuple[ArangoSettings, "contextlib.AbstractContextManager[None]"]]:
    """Yield a double, and what stops it while it is entered."""
    with double_process() as (settings, process):

        @contextlib.contextmanager
        def standing_still() -> Iterator[None]:
            process.send_signal(signal.SIGSTOP)
            try:
                yield
            finally:
                process.send_signal(signal.SIGCONT)

        yield settings, standing_still()


async def test_a_server_that_falls_silent_keeps_nobody_and_is_asked_again_when_it_wakes() -> None:
    with stopped() as (settings, standing_still):
        await bring_forward(Settings(arango=settings))
        async with connect(
            but(settings, query_timeout_s=0.5, connections_max=2, connect_timeout_s=0.5)
        ) as arango:
            keeper = ArangoTopology(arango)
            await filled(keeper, "t", "a>b")
            with standing_still:
                began = time.monotonic()
                asked = [keeper.read(SERVICES, "t", "a") for _ in range(6)]
                found = await asyncio.gather(*asked, keeper.ping(), return_exceptions=True)
                assert time.monotonic() - began < PATIENCE_S
                assert {getattr(one, "code", "") for one in found} == {"TOPOLOGY_UNAVAILABLE"}
            async with asyncio.timeout(PATIENCE_S):
                while not await is_well(keeper):
                    await asyncio.sleep(0.05)
            assert (await keeper.read(SERVICES, "t", "a")).id == "a"


async def is_well(keeper: ArangoTopology) -> bool:
    try:
        await keeper.ping()
    except Unavailable:
        return False
    return True


async def test_a_caller_that_gives_up_leaves_no_half_of_a_load(double: ArangoSettings) -> None:
    async with connect(double) as arango:
        keeper = ArangoTopology(arango)
        services = {f"s{number}": service() for number in range(400)}
        for _ in range(3):
            loading = asyncio.create_task(keeper.load("left", services, {}, version=version()))
            await asyncio.sleep(0)
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading
        # Whoever writes next waits for what still runs: then all of it is there, or none.
        await filled(keeper, "another", "a>b")
        found = await keeper.page(SERVICES, "left", after=None, limit=500, where={})
        assert len(found) in {0, len(services)}


async def test_conflicts_are_tried_again_but_not_for_ever(double: ArangoSettings) -> None:
    async with connect(double) as arango:
        keeper = ArangoTopology(arango)
        conflict(double, 2)
        await filled(keeper, "met", "a>b")
        assert await ids(keeper, "met", FLOWS) == ["f0000"]
        conflict(double, 1_000)
        try:
            with pytest.raises(Unavailable):
                await filled(keeper, "met", "a>b")
        finally:
            conflict(double, 0)


@pytest.mark.parametrize("number", [1654, 1655], ids=["aborted", "not-found"])
async def test_a_transaction_that_the_server_lost_is_done_again(double: ArangoSettings, number: int) -> None:
    async with connect(double) as arango:
        keeper = ArangoTopology(arango)
        conflict(double, 2, number)
        await filled(keeper, f"lost{number}", "a>b")
        assert await ids(keeper, f"lost{number}", FLOWS) == ["f0000"]


async def test_a_server_that_may_only_be_read_is_waited_for_not_set_up_anew(double: ArangoSettings) -> None:
    async with connect(double) as arango:
        conflict(double, 1, 1004)
        with pytest.raises(Unavailable) as refused:
            await filled(ArangoTopology(arango), "read-only", "a>b")
    assert refused.value.code == "TOPOLOGY_UNAVAILABLE"


async def test_a_query_that_runs_on_is_stopped_by_the_server(
    double: ArangoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "QUERY_RUNTIME_S_MAX", 0.2)

    def endless(database: StandardDatabase) -> None:
        records.rows(database, "FOR a IN 1..5000 FOR b IN 1..5000 FILTER a < 0 RETURN b", {})

    async with connect(double) as arango:
        with pytest.raises(Unavailable) as refused:
            await arango.ask(endless)
    assert "1500" in refused.value.detail


async def test_an_answer_of_many_batches_is_told_whole(
    double: ArangoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BATCH_ROWS", 2)
    async with connect(double) as arango:
        keeper = ArangoTopology(arango)
        await filled(keeper, "batches", "a>b a>c a>d a>e a>f")
        found = await keeper.downstream("batches", "a", depth_max=DEPTH)
        assert far(found) == ["b 1", "c 1", "d 1", "e 1", "f 1"]


@pytest.mark.parametrize("times", [1, 1_000], ids=["once", "always"])
async def test_a_way_whose_flow_vanishes_meanwhile_is_looked_for_again(
    double: ArangoSettings, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    vanishing = iter(range(times))

    def rows(database: Database, query: str, bound: dict[str, object]) -> list[object]:
        gone = "f.origin IN @near" in query and next(vanishing, None) is not None
        return [] if gone else records.rows(database, query, bound)

    monkeypatch.setattr(topology, "rows", rows)
    async with connect(double) as arango:
        keeper, tenant = ArangoTopology(arango), f"vanishing{times}"
        await filled(keeper, tenant, "a>b b>c")
        if times == 1:
            assert list(await keeper.shortest_path(tenant, "a", "c")) == ["a", "b", "c"]
        else:
            with pytest.raises(Unavailable):
                await keeper.shortest_path(tenant, "a", "c")


async def test_what_arangodb_refuses_is_our_defect(double: ArangoSettings) -> None:
    def misspelt(database: object) -> None:
        database.aql.execute("FOR d IN services RETURN d.sort")  # type: ignore[attr-defined]

    async with connect(double) as arango:
        assert isinstance(arango, Arango)
        with pytest.raises(Defect):
            await arango.ask(misspelt)
