"""The embedded ClickHouse behaves to the unmodified async client as a server does."""

import asyncio
import gzip
import io
import signal
import subprocess
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import clickhouse_connect
import lz4.frame
import numpy as np
import psutil
import pyarrow as pa
import pytest
import zstandard
from clickhouse_connect.driver import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from tests.contracts.embedded_fixtures import (
    PASSWORD,
    EngineProcess,
    free_port,
    launch,
    open_directory,
    running,
)

MEGABYTE = 1024 * 1024
KEY = {"X-ClickHouse-User": "tickgate", "X-ClickHouse-Key": PASSWORD}


@pytest.fixture(scope="module")
def server() -> Iterator[EngineProcess]:
    with open_directory() as directory, running("clickhouse", directory / "clickhouse") as engine:
        yield engine


async def connect(server: EngineProcess, **options: Any) -> AsyncClient:
    settings = {"username": "tickgate", "password": PASSWORD, "compress": False, **options}
    return await clickhouse_connect.get_async_client(host="127.0.0.1", port=server.port, **settings)


@pytest.fixture
async def client(server: EngineProcess) -> AsyncIterator[AsyncClient]:
    client = await connect(server)
    await client.command("DROP DATABASE IF EXISTS house SYNC")
    await client.command("CREATE DATABASE house")
    client.database = "house"
    yield client
    await client.close()


@pytest.fixture
async def table(client: AsyncClient) -> str:
    await client.command("CREATE TABLE ticks (seq UInt64, symbol String) ENGINE = MergeTree ORDER BY seq")
    return "ticks"


async def tally(client: AsyncClient) -> tuple[int, int, int]:
    result = await client.query("SELECT count(), uniqExact(seq), uniqExact(_part) FROM ticks")
    return tuple(result.result_rows[0])  # type: ignore[return-value]


def url(server: EngineProcess) -> str:
    return f"http://127.0.0.1:{server.port}/"


async def test_the_handshake_names_a_modern_server(client: AsyncClient) -> None:
    assert int((client.server_version or "0").split(".")[0]) >= 26
    assert await client.ping()


async def test_months_are_cut_in_utc_whatever_the_machine_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    with open_directory() as directory, running("clickhouse", directory / "clickhouse") as engine:
        client = await connect(engine)
        result = await client.query("SELECT timezone(), serverTimezone(), toYYYYMM(toDateTime(1764549000))")
        await client.close()
    assert result.result_rows == [("UTC", "UTC", 202512)]


@pytest.mark.parametrize("credentials", [{"password": "wrong"}, {"username": "root"}, {"password": ""}])
async def test_strangers_are_refused(server: EngineProcess, credentials: dict[str, str]) -> None:
    with pytest.raises(DatabaseError) as refused:
        await connect(server, **credentials)
    assert refused.value.code == 516


async def test_credentials_are_taken_from_headers_basic_and_parameters(server: EngineProcess) -> None:
    ways: list[dict[str, Any]] = [
        {"headers": KEY},
        {"headers": {"Authorization": aiohttp.encode_basic_auth("tickgate", PASSWORD)}},
        {"params": {"user": "tickgate", "password": PASSWORD}},
    ]
    async with aiohttp.ClientSession() as session:
        for way in ways:
            async with session.post(url(server), data="SELECT 1", **way) as answer:
                assert (answer.status, await answer.text()) == (200, "1\n")
        async with session.post(url(server), data="SELECT 1") as answer:
            assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
async def test_a_million_rows_sent_are_a_million_rows_in_one_part(
    server: EngineProcess, table: str, client: AsyncClient, compress: str | bool
) -> None:
    rows = 1_000_000
    sender = await connect(server, compress=compress, database="house")
    summary = await sender.insert(
        table,
        [np.arange(rows, dtype=np.uint64), ["EURUSD"] * rows],
        column_names=["seq", "symbol"],
        column_oriented=True,
    )
    await sender.close()
    assert summary.written_rows == rows
    assert await tally(client) == (rows, rows, 1)


@pytest.mark.parametrize("encoding", ["lz4", "zstd", "gzip", "deflate"])
async def test_every_frame_of_a_body_is_stored(
    server: EngineProcess, table: str, client: AsyncClient, encoding: str
) -> None:
    compress = {
        "lz4": lz4.frame.compress,
        "zstd": zstandard.ZstdCompressor().compress,
        "gzip": gzip.compress,
        "deflate": zlib.compress,
    }[encoding]
    body = b"".join(compress(f"{seq},EURUSD\n".encode()) for seq in range(500))
    answer = await post(
        server, {"query": "INSERT INTO house.ticks FORMAT CSV"}, body, {"Content-Encoding": encoding}
    )
    assert answer[0] == 200
    assert (await tally(client))[:2] == (500, 500)


async def post(
    server: EngineProcess, params: dict[str, str], body: Any, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    sent = io.BytesIO(body) if isinstance(body, bytes) else body
    async with (
        aiohttp.ClientSession(headers=KEY) as session,
        session.post(url(server), params=params, data=sent, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


@pytest.mark.parametrize("encoding", ["lz4", "zstd", "gzip", "br"])
async def test_a_frame_cut_short_or_unknown_stores_nothing(
    server: EngineProcess, table: str, client: AsyncClient, encoding: str
) -> None:
    body = b"".join(f"{seq},EURUSD\n".encode() for seq in range(100_000))
    whole = {"lz4": lz4.frame.compress, "zstd": zstandard.compress, "gzip": gzip.compress}.get(
        encoding, bytes
    )(body)
    params = {"query": "INSERT INTO house.ticks FORMAT CSV"}
    status, text = await post(server, params, whole[:-9], {"Content-Encoding": encoding})
    assert status == (400 if encoding != "br" else 500)
    assert text.startswith("Code: ")
    assert await tally(client) == (0, 0, 0)


async def test_rows_come_by_columns_by_arrow_by_text_and_by_select(client: AsyncClient, table: str) -> None:
    await client.insert(table, [[1, "a"], [2, "b"]], column_names=["seq", "symbol"])
    await client.insert_arrow(table, pa.table({"seq": pa.array([3, 4], pa.uint64()), "symbol": ["c", "d"]}))
    await client.raw_insert(table, insert_block=b"5\te\n", fmt="TabSeparated")
    await client.raw_insert(table, insert_block=b'{"seq":6,"symbol":"f"}\n', fmt="JSONEachRow")
    await client.command("INSERT INTO ticks VALUES (7, 'FORMAT CSV'), (8, ';')")
    await client.command("INSERT INTO ticks SELECT number + 9, 'x' FROM numbers(2)")
    result = await client.query("SELECT * FROM ticks ORDER BY seq")
    assert [row[0] for row in result.result_rows] == list(range(1, 11))
    assert result.result_rows[6][1] == "FORMAT CSV"


async def test_a_one_shot_native_body_with_the_statement_in_the_url(client: AsyncClient, table: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        block = b"\x02\x03\x03seq\x06UInt64" + np.arange(3, dtype="<u8").tobytes() + b"\x06symbol\x06String"
        yield block
        yield b"\x01a\x01b\x01c"

    summary = await client.raw_insert(
        table, insert_block=body(), fmt="Native", settings={"query_id": "one/shot"}
    )
    assert (summary.written_rows, summary.query_id()) == (3, "one/shot")
    assert (await tally(client))[0] == 3


async def test_parameters_settings_and_database_reach_the_engine(client: AsyncClient) -> None:
    tricky = "it's \\ a \"tab\t\nname`"
    result = await client.query(
        "SELECT {text:String}, {numbers:Array(UInt8)}, getSetting('max_block_size'), currentDatabase()",
        parameters={"text": tricky, "numbers": [1, 2]},
        settings={"max_block_size": 4321},
    )
    assert result.result_rows == [(tricky, [1, 2], 4321, "house")]
    again = await client.query("SELECT getSetting('max_block_size')")
    assert again.result_rows != [(4321,)]


@pytest.mark.parametrize(
    ("query", "code", "status"),
    [
        ("SELECT * FROM nowhere", 60, 404),
        ("SELECT noSuchFunction(1)", 46, 404),
        ("SELEC 1", 62, 400),
        ("SELECT 1; SELECT 2", 62, 400),
        ("DROP TABLE nowhere", 60, 404),
        ("SELECT throwIf(1)", 395, 500),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", 48, 501),
        ("INSERT INTO house.ticks FROM INFILE '/etc/passwd' FORMAT CSV", 48, 501),
        ("INSERT INTO nowhere FORMAT CSV\n1", 60, 404),
        ("SELECT 1 SETTINGS no_such_setting = 1", 115, 404),
        ("KILL QUERY WHERE", 62, 400),
        ("SELECT 1 FORMAT NoSuch", 73, 404),
    ],
)
async def test_errors_have_the_code_and_the_status_of_a_server(
    server: EngineProcess, query: str, code: int, status: int
) -> None:
    answer = await post(server, {}, query)
    assert answer[1].startswith(f"Code: {code}. DB::Exception: ")
    assert answer[0] == status


@pytest.mark.parametrize(
    ("fmt", "expected"),
    [
        ("TabSeparated", b"0\ta\n1\ta\n"),
        ("CSV", b'0,"a"\n1,"a"\n'),
        ("CSVWithNames", b'"n","s"\n0,"a"\n1,"a"\n'),
        ("JSONEachRow", b'{"n":0,"s":"a"}\n{"n":1,"s":"a"}\n'),
        ("RowBinary", b"\x00\x01a\x01\x01a"),
        ("Values", b"(0,'a'),(1,'a')"),
        ("Null", b""),
    ],
)
async def test_answers_come_in_the_format_asked_for(client: AsyncClient, fmt: str, expected: bytes) -> None:
    assert (
        await client.raw_query("SELECT toUInt8(number) AS n, 'a' AS s FROM numbers(2)", fmt=fmt) == expected
    )


@pytest.mark.parametrize("rows", [0, 3, 200_000])
async def test_arrow_and_parquet_are_one_well_formed_answer(client: AsyncClient, rows: int) -> None:
    query = f"SELECT number, toString(number) AS text FROM numbers({rows})"
    table = await client.query_arrow(query)
    assert table.num_rows == rows
    assert table.column_names == ["number", "text"]
    whole = await client.raw_query(query, fmt="Arrow")
    assert pa.ipc.open_file(whole).read_all().num_rows == rows
    stream = await client.raw_query(query, fmt="ArrowStream")
    assert pa.ipc.open_stream(stream).read_all()["number"].to_pylist() == list(range(rows))
    assert (await client.raw_query(query, fmt="Parquet"))[:4] == b"PAR1"


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
async def test_a_large_answer_arrives_whole_and_in_order(server: EngineProcess, compress: str | bool) -> None:
    client = await connect(server, compress=compress)
    result = await client.query_np("SELECT number FROM numbers(3000000)")
    await client.close()
    assert np.array_equal(result[:, 0], np.arange(3_000_000))


async def test_a_filter_that_empties_whole_blocks_does_not_end_the_answer(client: AsyncClient) -> None:
    result = await client.query("SELECT number FROM numbers(20000000) WHERE number % 9000000 = 0")
    assert [row[0] for row in result.result_rows] == [0, 9_000_000, 18_000_000]


async def test_an_answer_without_rows_has_none(client: AsyncClient, table: str) -> None:
    assert (await client.query("SELECT * FROM ticks")).result_rows == []
    assert (await client.query("SELECT * FROM ticks LIMIT 0")).column_names == ("seq", "symbol")
    assert await client.command("SHOW TABLES") == "ticks"
    assert await client.command("EXISTS TABLE ticks") == 1


async def test_an_error_half_way_is_never_taken_for_the_end(client: AsyncClient) -> None:
    seen = 0
    with pytest.raises(StreamFailureError) as failed:  # noqa: PT012 - where it breaks is the server's to choose
        async with await client.query_row_block_stream(
            "SELECT number, throwIf(number = 9000000) FROM numbers(10000000)"
        ) as stream:
            async for block in stream:
                seen += len(block)
    # The client either reads the error out of the body or first sees that the connection was cut.
    assert failed.value.code in {395, None}
    assert 0 < seen < 9_000_000


async def test_a_slow_reader_holds_the_answer_back_and_memory_stays_flat(
    server: EngineProcess, client: AsyncClient
) -> None:
    process = psutil.Process(server.pid)
    before = process.memory_info().rss
    query = "SELECT number, toString(number) AS a, rand64() AS b FROM numbers(5000000) FORMAT RowBinary"
    peak, received = 0, 0
    async with (
        aiohttp.ClientSession(headers=KEY, read_bufsize=MEGABYTE) as session,
        session.post(url(server), data=query, params={"query_id": "slow"}) as answer,
    ):
        received += len(await answer.content.readany())
        progress = [-1, -2]
        # Nothing is read here, so the engine must come to a halt by itself.
        while progress[-1] != progress[-2]:
            await asyncio.sleep(0.1)
            result = await client.query("SELECT read_rows FROM system.processes WHERE query_id = 'slow'")
            progress.append(result.result_rows[0][0])
        assert progress[-1] < 1_000_000
        async for chunk in answer.content.iter_any():
            received += len(chunk)
            peak = max(peak, process.memory_info().rss)
    assert received > 110 * MEGABYTE
    assert peak - before < 100 * MEGABYTE


async def test_many_clients_at_once_are_all_answered(client: AsyncClient) -> None:
    answers = await asyncio.gather(
        *(
            client.query("SELECT sum(number) + {n:UInt32} FROM numbers(100000)", parameters={"n": n})
            for n in range(100)
        )
    )
    assert [answer.result_rows[0][0] - 4_999_950_000 for answer in answers] == list(range(100))


async def test_a_query_id_runs_once_at_a_time(client: AsyncClient) -> None:
    first = asyncio.create_task(client.query(ENDLESS, settings={"query_id": "twice"}))
    await until_running(client, "twice")
    with pytest.raises(DatabaseError) as refused:
        await client.query("SELECT 1", settings={"query_id": "twice"})
    assert refused.value.code == 216
    await client.command("KILL QUERY WHERE query_id = 'twice' SYNC")
    with pytest.raises(DatabaseError):
        await first


ENDLESS = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"


async def until_running(client: AsyncClient, query_id: str) -> None:
    while not (
        await client.query(f"SELECT 1 FROM system.processes WHERE query_id = '{query_id}'")
    ).result_rows:
        await asyncio.sleep(0.01)


async def test_processes_show_what_runs_with_the_ids_and_users_of_the_clients(client: AsyncClient) -> None:
    running_query = asyncio.create_task(client.query(ENDLESS, settings={"query_id": "seen/1"}))
    await until_running(client, "seen/1")
    result = await client.query(
        "SELECT p.query_id, p.user, p.elapsed > 0, startsWith(p.query, 'SELECT count()') "
        "FROM `system`.processes AS p WHERE query_id LIKE 'seen/%'"
    )
    assert result.result_rows == [("seen/1", "tickgate", 1, 1)]
    assert (await client.query("SELECT 'system.processes'")).result_rows == [("system.processes",)]
    killed = await client.query("KILL QUERY WHERE query_id LIKE 'seen/%' SYNC")
    assert tuple(killed.result_rows[0][:3]) == ("finished", "seen/1", "tickgate")
    with pytest.raises(DatabaseError) as stopped:
        await running_query
    assert stopped.value.code == 394
    assert await client.raw_query("KILL QUERY WHERE query_id LIKE 'seen/%' SYNC") == b""


async def test_a_time_limit_is_kept_by_questions_and_by_inserts(
    server: EngineProcess, client: AsyncClient, table: str
) -> None:
    with pytest.raises(DatabaseError) as late:
        await client.query(ENDLESS, settings={"max_execution_time": 0.3})
    assert late.value.code == 159
    body = b"".join(b"%d,EURUSD\n" % seq for seq in range(300_000))
    for text, settings in (("", {"max_execution_time": "0.01"}), ("SETTINGS max_execution_time = 0.01", {})):
        query = f"INSERT INTO house.ticks {text} FORMAT CSV"
        assert (await post(server, {"query": query, **settings}, body))[0] == 408
    assert await tally(client) == (0, 0, 0)


@pytest.mark.parametrize("inline", [True, False])
async def test_rows_the_table_refuses_are_an_error_not_a_success(client: AsyncClient, inline: bool) -> None:
    """The engine's own streaming insert answers "written" here and stores nothing: that lost acknowledged ticks."""
    await client.command("CREATE TABLE cut (n UInt8) ENGINE = MergeTree PARTITION BY n ORDER BY n")
    limit = {"max_partitions_per_insert_block": 1}
    table, settings = ("cut SETTINGS max_partitions_per_insert_block = 1", None) if inline else ("cut", limit)
    with pytest.raises(DatabaseError) as refused:
        await client.raw_insert(table, insert_block=b"1\n2\n", fmt="CSV", settings=settings)
    assert refused.value.code == 252
    assert (await client.query("SELECT count() FROM cut")).result_rows == [(0,)]
    await client.raw_insert(table, insert_block=b"1\n1\n", fmt="CSV", settings=settings)
    assert (await client.query("SELECT count() FROM cut")).result_rows == [(2,)]


async def test_a_query_cannot_take_all_the_memory(client: AsyncClient) -> None:
    with pytest.raises(DatabaseError) as refused:
        await client.query("SELECT groupArray(toString(number)) FROM numbers(100000000)")
    assert refused.value.code == 241
    assert (await client.query("SELECT 1")).result_rows == [(1,)]


async def test_tables_sent_along_can_be_queried(client: AsyncClient) -> None:
    sent = ExternalData(
        file_name="wanted.csv", data=b"1,a\n2,b\n", fmt="CSV", structure=["n UInt8", "s String"]
    )
    result = await client.query(
        "SELECT s FROM wanted WHERE n = {n:UInt8}", parameters={"n": 2}, external_data=sent
    )
    assert result.result_rows == [("b",)]


def test_a_session_keeps_its_temporary_tables_and_not_the_settings_of_a_call(server: EngineProcess) -> None:
    with clickhouse_connect.get_client(
        host="127.0.0.1", port=server.port, username="tickgate", password=PASSWORD, session_id="mine"
    ) as client:
        client.command("CREATE TEMPORARY TABLE kept (n UInt8)")
        client.insert("kept", [[5]], column_names=["n"])
        assert client.query("SELECT n FROM kept").result_rows == [(5,)]
        client.command("SELECT 1", settings={"max_block_size": 77})
        assert client.query("SELECT getSetting('max_block_size')").result_rows != [(77,)]


def test_a_second_process_is_refused_in_one_line_and_harms_nothing(server: EngineProcess) -> None:
    second = launch("clickhouse", server.directory, free_port(), stderr=subprocess.PIPE)
    assert second.stderr is not None
    text = second.communicate(timeout=20)[1].decode()
    assert second.returncode == 1
    assert text.count("\n") == 1
    assert "Another process uses the ClickHouse data" in text


def test_a_taken_port_is_refused_in_one_line(server: EngineProcess) -> None:
    with open_directory() as directory:
        second = launch("clickhouse", directory, server.port, stderr=subprocess.PIPE)
        text = second.communicate(timeout=20)[1].decode()
    assert second.returncode == 1
    assert text.count("\n") == 1


def test_the_engine_stops_in_order(server: EngineProcess) -> None:
    with open_directory() as directory, running("clickhouse", directory / "clickhouse") as engine:
        assert engine.end(signal.SIGTERM) == 0
        engine.start()
        assert engine.end(signal.SIGINT) == 0
