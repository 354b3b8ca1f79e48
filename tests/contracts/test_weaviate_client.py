"""The connection to Weaviate: who is let in, what is refused, and that nothing waits for ever."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.adapters.weaviate import records
from core.adapters.weaviate.client import Weaviate, connect, open_client
from core.adapters.weaviate.objects import COLLECTIONS
from core.adapters.weaviate.schema import WeaviateSchema, open_schema
from core.adapters.weaviate.similarity import WeaviateSimilarity
from core.errors.exceptions import Defect, Misconfigured, TickgateError, Unavailable
from core.infrastructure.central_hub import open_hub
from core.infrastructure.schemas import steps
from core.model.records import RecordKind
from core.settings import Secret, Settings, WeaviateSettings
from tests.contracts.test_gateway_tls import certify
from tests.engines import free_port, wait_for
from tests.similarity_checks import INCIDENTS, LIBRARY
from tests.weaviate_servers import double_process, migrated, running_double

PATIENCE_S = 8.0
"""More than any bound under test, with room for a busy machine."""


@pytest.fixture(scope="module")
def double() -> Iterator[tuple[WeaviateSettings, subprocess.Popen[bytes]]]:
    with double_process(api_key="right") as (settings, process):
        migrated(Settings(), settings)
        yield settings, process


@pytest.fixture
def settings(double: tuple[WeaviateSettings, subprocess.Popen[bytes]]) -> WeaviateSettings:
    return double[0]


def but(settings: WeaviateSettings, **changes: object) -> WeaviateSettings:
    return msgspec.structs.replace(settings, **changes)


async def opened(settings: WeaviateSettings) -> None:
    async with open_hub(Settings(weaviate=settings), {"weaviate"}):
        pass


async def refusal(settings: WeaviateSettings) -> TickgateError:
    started = time.monotonic()
    with pytest.raises(TickgateError) as refused:
        await opened(settings)
    assert time.monotonic() - started < PATIENCE_S
    return refused.value


async def test_the_right_key_is_let_in(settings: WeaviateSettings) -> None:
    await opened(settings)


@pytest.mark.parametrize("key", ["wrong", ""])
async def test_a_wrong_key_is_a_matter_of_settings(settings: WeaviateSettings, key: str) -> None:
    refused = await refusal(but(settings, api_key=Secret(key)))
    assert isinstance(refused, Misconfigured)
    assert refused.code == "SIMILARITY_AUTH"


async def test_a_server_that_is_too_old_is_a_matter_of_settings() -> None:
    with running_double("--version", "1.26.9") as old:
        refused = await refusal(old)
    assert isinstance(refused, Misconfigured)
    assert refused.code == "SIMILARITY_TOO_OLD"


@pytest.mark.parametrize("version", ["1.27.0", "1.28.4", "1.37.0"])
async def test_servers_of_several_versions_are_spoken_to_as_they_expect(version: str) -> None:
    with running_double("--version", version) as settings:
        async with open_schema(Settings(weaviate=settings)) as schema:
            assert await schema.applied() == {}
            await schema.apply(steps("weaviate")[0])
        async with open_client(Settings(weaviate=settings), {}) as weaviate:
            name = COLLECTIONS[RecordKind.INCIDENTS]
            whole = weaviate.collection(name)
            await weaviate.ask(lambda: whole.tenants.create("t-a"))
            assert await weaviate.ask(lambda: whole.tenants.exists("t-a"))
            part = weaviate.collection(name, "t-a")
            properties = {"record_id": "a", "words": "one two"}
            await weaviate.ask(lambda: part.data.insert(properties=properties, vector=[1.0, 0.0]))
            near = await weaviate.ask(lambda: part.query.near_vector([1.0, 0.0], limit=1))
            both = await weaviate.ask(lambda: part.query.hybrid("two", vector=[1.0, 0.0], alpha=0.5, limit=1))
            assert [len(found.objects) for found in (near, both)] == [1, 1]


@contextlib.contextmanager
def answering(text: bytes) -> Iterator[WeaviateSettings]:
    """Accept connections, and answer `text` to whatever comes; to nothing at all with an empty one."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    stack.enter_context(peer)
                    if text and peer.recv(65_536):
                        peer.sendall(text)

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        yield WeaviateSettings(host="127.0.0.1", port=port, grpc_port=free_port(), connect_timeout_s=0.5)
        server.shutdown(socket.SHUT_RDWR)


async def test_what_is_no_weaviate_is_a_matter_of_settings() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as settings:
        refused = await refusal(settings)
    assert isinstance(refused, Misconfigured)
    assert refused.code == "SIMILARITY_UNKNOWN"


async def test_the_key_goes_to_nobody_whose_certificate_is_not_vouched_for(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certify(tmp_path))
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    with (
                        contextlib.suppress(OSError),
                        peer,
                        context.wrap_socket(peer, server_side=True) as safe,
                    ):
                        heard.append(safe.recv(65_536))

        threading.Thread(target=serve, daemon=True).start()
        refused = await refusal(
            WeaviateSettings(
                host="127.0.0.1",
                port=server.getsockname()[1],
                grpc_port=free_port(),
                secure=True,
                api_key=Secret("right"),
            )
        )
        server.shutdown(socket.SHUT_RDWR)
    assert isinstance(refused, Unavailable)
    assert b"".join(heard) == b""


async def test_a_server_that_accepts_and_never_answers_is_away() -> None:
    with answering(b"") as settings:
        assert isinstance(await refusal(settings), Unavailable)


async def test_nobody_there_is_away_at_once() -> None:
    settings = WeaviateSettings(host="127.0.0.1", port=free_port(), grpc_port=free_port())
    assert isinstance(await refusal(settings), Unavailable)


async def test_half_a_server_is_away(settings: WeaviateSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for grpc_port in (free_port(), silent.getsockname()[1]):
            assert isinstance(
                await refusal(but(settings, grpc_port=grpc_port, query_timeout_s=1.0)), Unavailable
            )


async def test_a_server_that_falls_silent_is_away_and_comes_back(
    double: tuple[WeaviateSettings, subprocess.Popen[bytes]],
) -> None:
    settings, process = double
    async with open_client(Settings(weaviate=but(settings, query_timeout_s=0.5)), {}) as weaviate:
        steps_noted = weaviate.collection("TickgateSchema")
        process.send_signal(signal.SIGSTOP)
        try:
            for question in (
                weaviate.ping,
                lambda: weaviate.ask(lambda: steps_noted.query.fetch_objects(limit=1)),
                lambda: weaviate.ask(weaviate.client.get_meta),
            ):
                started = time.monotonic()
                with pytest.raises(Unavailable):
                    await question()
                assert time.monotonic() - started < PATIENCE_S
        finally:
            process.send_signal(signal.SIGCONT)
        await _answers(weaviate)


async def _answers(weaviate: Weaviate) -> None:
    for _ in range(40):
        with contextlib.suppress(Unavailable):
            await weaviate.ping()
            return
    raise AssertionError("it does not answer again")


async def test_no_more_than_the_bound_ask_at_once(settings: WeaviateSettings) -> None:
    bounded = but(settings, connections_max=1, connect_timeout_s=0.5)
    async with connect(settings) as weaviate:
        weaviate = Weaviate(weaviate.client, bounded)
        entered, leave = asyncio.Event(), asyncio.Event()

        async def long() -> None:
            entered.set()
            await leave.wait()

        first = asyncio.create_task(weaviate.ask(long))
        await entered.wait()
        with pytest.raises(Unavailable) as refused:
            await weaviate.ask(weaviate.client.get_meta)
        assert "at once" in refused.value.public
        leave.set()
        await first
        await weaviate.ask(weaviate.client.get_meta)


async def test_what_the_server_refuses_is_our_defect(settings: WeaviateSettings) -> None:
    async with connect(settings) as weaviate:
        whole = weaviate.collection(COLLECTIONS[RecordKind.INCIDENTS])
        with pytest.raises(Defect):
            await weaviate.ask(lambda: whole.tenants.create("no tenant of this name"))


async def test_a_step_that_was_interrupted_is_finished_by_applying_it_again() -> None:
    with running_double() as settings:
        async with open_schema(Settings(weaviate=settings)) as schema:
            assert await schema.applied() == {}
            (step,) = steps("weaviate")
            first = msgspec.json.decode(step.sql)[0]
            await schema._weaviate.ask(lambda: schema._weaviate.client.collections.create_from_dict(first))
            await schema.apply(step)
            assert await schema.applied() == {step.number: step.checksum}
            assert isinstance(schema, WeaviateSchema)
        await opened(settings)


async def test_a_server_without_our_schema_is_not_ready() -> None:
    with running_double() as settings:
        refused = await refusal(settings)
    assert isinstance(refused, Unavailable)
    assert refused.code == "SCHEMA_OLDER"


def test_a_process_without_weaviate_does_not_load_its_client() -> None:
    program = (
        "import sys, core.infrastructure.central_hub, workers.workshops, core.adapters.postgres.similarity\n"
        "assert not {'weaviate', 'grpc'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=dict(os.environ))


def test_loading_the_client_warns_nobody() -> None:
    program = "import core.adapters.weaviate.similarity"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, env=dict(os.environ)
    )
    assert ended.stderr == b""


async def test_a_tenant_that_was_taken_away_is_made_again(
    double: tuple[WeaviateSettings, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(double[0]) as weaviate:
        keeper = WeaviateSimilarity(weaviate, NoLocks())
        assert await keeper.load(INCIDENTS, "gone", LIBRARY, version="a" * 32) == len(LIBRARY)
        whole = weaviate.collection(COLLECTIONS[INCIDENTS])
        await weaviate.ask(lambda: whole.tenants.remove("t-gone"))
        monkeypatch.setattr(records, "TENANT_KNOWN_S", 0.0)
        assert await keeper.page(INCIDENTS, "gone", after=None, limit=9, where={}) == ()
        assert await keeper.load(INCIDENTS, "gone", LIBRARY, version="a" * 32) == len(LIBRARY)
        assert len(await keeper.page(INCIDENTS, "gone", after=None, limit=9, where={})) == len(LIBRARY)


async def test_a_creation_that_was_given_up_and_done_all_the_same_is_the_same_one(
    double: tuple[WeaviateSettings, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(double[0]) as weaviate:
        keeper = WeaviateSimilarity(weaviate, NoLocks())
        made = await keeper.create(INCIDENTS, "twice", "one", LIBRARY["reset"], version="a" * 32)
        find, times = keeper.find, itertools.count()

        async def arrives_late(*asked: Any) -> Any:
            return await find(*asked) if next(times) else None

        monkeypatch.setattr(keeper, "find", arrives_late)
        again = await keeper.create(INCIDENTS, "twice", "one", LIBRARY["reset"], version="a" * 32)
        assert again == made


class NoLocks:
    """For one writer alone."""

    def held(self, tenant: str, kind: str, record_id: str) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()


def test_the_double_is_gone_with_its_test() -> None:
    with double_process() as (_, process):
        pass
    wait_for(lambda: process.poll() is not None, "its end")
