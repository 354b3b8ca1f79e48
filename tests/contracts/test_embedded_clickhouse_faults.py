"""Nothing is stored that was not sent whole, nothing is stored after a drain, and nothing stored is lost by a kill."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import clickhouse_connect
import numpy as np
import psutil
import pytest
from clickhouse_connect.driver import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from tests.contracts.embedded_fixtures import PASSWORD, EngineProcess, open_directory, running

ROWS = 200_000
DRAIN = "KILL QUERY WHERE query_id LIKE 'ticks/%' SYNC"
# Sorting by a hash makes an insert slow enough to be met in the middle.
TABLE = "CREATE TABLE ticks (seq UInt64, batch UInt64) ENGINE = MergeTree ORDER BY sipHash64(seq)"


@pytest.fixture(scope="module")
def server() -> Iterator[EngineProcess]:
    with open_directory() as directory, running("clickhouse", directory / "clickhouse") as engine:
        yield engine


async def connect(server: EngineProcess) -> AsyncClient:
    return await clickhouse_connect.get_async_client(
        host="127.0.0.1", port=server.port, username="tickgate", password=PASSWORD, compress=False
    )


@pytest.fixture
async def client(server: EngineProcess) -> AsyncIterator[AsyncClient]:
    client = await connect(server)
    await client.command("DROP TABLE IF EXISTS ticks SYNC")
    await client.command(TABLE)
    yield client
    await client.close()


def native(batch: int, rows: int = ROWS) -> bytes:
    count = bytes([rows & 127 | 128, rows >> 7 & 127 | 128, rows >> 14])
    seq = np.arange(rows, dtype="<u8").tobytes()
    return (
        b"\x02"
        + count
        + b"\x03seq\x06UInt64"
        + seq
        + b"\x05batch\x06UInt64"
        + np.full(rows, batch, "<u8").tobytes()
    )


async def batches(client: AsyncClient) -> dict[int, int]:
    result = await client.query("SELECT batch, count() FROM ticks GROUP BY batch")
    return dict(result.result_rows)


def head(batch: int, *, length: int | None) -> bytes:
    query = quote("INSERT INTO ticks (seq, batch) FORMAT Native")
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        f"POST /?query={query}&query_id=ticks/{batch} HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: tickgate\r\n"
        f"X-ClickHouse-Key: {PASSWORD}\r\n{size}\r\n\r\n"
    ).encode()


def chunked(body: bytes, step: int = 65_536) -> bytes:
    parts = (body[start : start + step] for start in range(0, len(body), step))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def send_and_vanish(server: EngineProcess, data: bytes, *, reset: bool) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        if reset:
            writer.transport.abort()
        else:
            await writer.drain()
            writer.close()


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_body_cut_anywhere_stores_nothing(
    server: EngineProcess, client: AsyncClient, framing: str, reset: bool
) -> None:
    cuts = random.Random(7)
    body = native(1)
    for batch in range(8):
        whole = (
            head(batch, length=None) + chunked(body)
            if framing == "chunked"
            else head(batch, length=len(body)) + body
        )
        # The last cut is one byte short of a whole request.
        cut = len(whole) - 1 if batch == 7 else cuts.randrange(len(head(batch, length=0)), len(whole))
        await send_and_vanish(server, whole[:cut], reset=reset)
    await client.command(DRAIN)
    assert await batches(client) == {}
    assert (await client.query("SELECT count() FROM system.processes")).result_rows == [(1,)]


async def test_a_native_block_cut_inside_a_whole_body_stores_nothing(
    server: EngineProcess, client: AsyncClient
) -> None:
    with pytest.raises(ClickHouseError) as refused:
        await client.raw_insert("ticks", insert_block=native(1) + native(1)[:-5], fmt="Native")
    assert refused.value.code == 33  # type: ignore[attr-defined]
    assert await batches(client) == {}


async def test_after_a_drain_an_insert_whose_client_is_gone_changes_nothing_any_more(
    server: EngineProcess, client: AsyncClient
) -> None:
    moments = random.Random(11)
    stored: dict[int, int] = {}
    for batch in range(25):
        request = head(batch, length=None) + chunked(native(batch))
        sender = asyncio.create_task(send_and_vanish(server, request, reset=False))
        await asyncio.sleep(moments.choice([0, 0, 0.001, 0.01, 0.02, 0.04]))
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        await client.command(DRAIN)
        found = await batches(client)
        assert set(found.values()) <= {ROWS}
        # Nothing of the earlier batches appeared after the drain that followed them.
        assert {old: rows for old, rows in found.items() if old < batch} == stored
        stored = found
    await client.command("INSERT INTO ticks VALUES (1, 999)")
    assert await batches(client) == {**stored, 999: 1}


async def test_a_killed_insert_is_never_reported_as_stored_without_being_stored(
    server: EngineProcess, client: AsyncClient
) -> None:
    moments = random.Random(13)
    refused = 0
    for batch in range(25):
        settings = {"query_id": f"ticks/{batch}"}
        insert = asyncio.create_task(
            client.raw_insert("ticks", insert_block=native(batch), fmt="Native", settings=settings)
        )
        await asyncio.sleep(moments.uniform(0, 0.05))
        await client.command(DRAIN)
        after_drain = (await batches(client)).get(batch, 0)
        try:
            summary = await insert
        except ClickHouseError as error:
            refused += 1
            assert (error.code, after_drain in {0, ROWS}) == (394, True)  # noqa: PT017 - one of two fair outcomes
        else:
            # It either ended before the drain, or was sent after it.
            assert summary.written_rows == ROWS
            assert (await batches(client)).get(batch) == ROWS
            continue
        assert (await batches(client)).get(batch, 0) == after_drain
    assert refused > 0


async def test_a_client_that_leaves_stops_its_question(server: EngineProcess, client: AsyncClient) -> None:
    query = quote("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1")
    request = f"GET /?query={query}&query_id=left HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: tickgate\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{request}X-ClickHouse-Key: {PASSWORD}\r\n\r\n".encode())
    while not await runs(client, "left"):
        await asyncio.sleep(0.01)
    writer.close()
    while await runs(client, "left"):
        await asyncio.sleep(0.01)


async def runs(client: AsyncClient, query_id: str) -> bool:
    result = await client.query(f"SELECT 1 FROM system.processes WHERE query_id = '{query_id}'")
    return bool(result.result_rows)


async def test_a_reader_that_never_reads_can_still_be_killed(
    server: EngineProcess, client: AsyncClient
) -> None:
    query = quote("SELECT number, rand64() FROM numbers(1000000000) FORMAT RowBinary")
    request = f"GET /?query={query}&query_id=stuck HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: tickgate\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{request}X-ClickHouse-Key: {PASSWORD}\r\n\r\n".encode())
    while not await runs(client, "stuck"):
        await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await client.command("KILL QUERY WHERE query_id = 'stuck' SYNC")
    assert not await runs(client, "stuck")
    writer.close()


async def test_what_was_acknowledged_outlives_kill_9_and_nothing_is_there_in_part() -> None:
    with open_directory() as directory, running("clickhouse", directory / "clickhouse") as engine:
        client = await connect(engine)
        await client.command(TABLE)
        acknowledged: set[int] = set()
        next_batch = 0
        for _ in range(3):
            kill_after = len(acknowledged) + 15

            async def send(client: AsyncClient, first: int, kill_after: int) -> int:
                batch = first
                with contextlib.suppress(ClickHouseError):
                    while True:
                        batch += 1
                        await client.raw_insert("ticks", insert_block=native(batch, 20_000), fmt="Native")
                        acknowledged.add(batch)
                        if len(acknowledged) == kill_after:
                            # The kill meets the next insert on its way.
                            asyncio.get_running_loop().call_later(0.002, psutil.Process(engine.pid).kill)
                return batch

            next_batch = await send(client, next_batch, kill_after)
            await client.close()
            assert engine.process is not None
            engine.process.wait(10)
            engine.start()
            client = await connect(engine)
            found = await batches(client)
            assert acknowledged <= set(found)
            assert set(found.values()) == {20_000}
        await client.close()
        assert engine.end(signal.SIGTERM) == 0


async def test_a_stop_lets_a_running_insert_finish(server: EngineProcess) -> None:
    with open_directory() as directory, running("clickhouse", directory / "clickhouse") as engine:
        client = await connect(engine)
        await client.command(TABLE)
        inserts = [
            asyncio.create_task(client.raw_insert("ticks", insert_block=native(batch), fmt="Native"))
            for batch in range(4)
        ]
        while (
            await client.query("SELECT count() FROM system.processes WHERE query LIKE 'INSERT%'")
        ).result_rows == [(0,)]:
            await asyncio.sleep(0)
        assert await asyncio.to_thread(engine.end, signal.SIGTERM) == 0
        done = await asyncio.gather(*inserts, return_exceptions=True)
        await client.close()
        engine.start()
        client = await connect(engine)
        found = await batches(client)
        for batch, outcome in enumerate(done):
            if not isinstance(outcome, Exception):
                assert found[batch] == ROWS
        assert set(found.values()) == {ROWS}
        await client.close()
