"""The bridge on the wire: whatever a client sends gets a typed answer, and what is acknowledged is stored."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from core.errors.exceptions import Conflict
from core.infrastructure.central_hub import open_hub
from core.market.checksum import checksum
from core.messages import wire
from core.messages.wire import Batch, FrameType, Nack, NackCode, TallyFrame, TallyItem
from core.model.ticks import SymbolRun
from core.ports.ticks import Source
from tests.bridges import DAY_MS, SOURCE, TENANT, Bridge, Wire, dial, http_status, make_rows


@pytest.fixture
async def client(bridge: Bridge) -> AsyncIterator[Wire]:
    async with dial(bridge) as client:
        yield client


async def stored(bridge: Bridge, columns: str = "seq, bid", where: str = "1") -> list[tuple[Any, ...]]:
    async with open_hub(bridge.settings, {"clickhouse"}) as hub:
        query = f"select {columns} from ticks where {where} order by epoch, seq"
        return [tuple(row) for row in (await hub["clickhouse"].client.query(query)).result_rows]


async def stored_seqs(bridge: Bridge) -> list[int]:
    return [row[0] for row in await stored(bridge)]


async def test_ticks_are_stored_before_they_are_acknowledged(bridge: Bridge, client: Wire) -> None:
    resume = await client.resume()
    assert (resume.epoch, resume.next_seq, resume.cursors) == (1, 1, [])
    rows = make_rows(1_000)
    await client.batch(1, rows)
    await client.acknowledged(1_000)
    assert await stored(bridge) == [(i + 1, row["bid"].item()) for i, row in enumerate(rows)]


async def test_a_gap_is_refused_and_the_rest_goes_on(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    await client.batch(1, make_rows(10))
    await client.acknowledged(10)
    await client.batch(21, make_rows(10))
    nack = await client.nack()
    assert (nack.code, nack.expected) == (NackCode.GAP, 11)
    await client.batch(11, make_rows(20))
    await client.acknowledged(30)
    assert await stored_seqs(bridge) == list(range(1, 31))


async def test_overlap_is_dropped_row_for_row(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    await client.batch(1, make_rows(10))
    await client.batch(1, make_rows(10))
    await client.batch(6, make_rows(10, first=5))
    await client.acknowledged(15)
    assert await stored_seqs(bridge) == list(range(1, 16))


async def test_a_broken_crc_is_asked_for_again(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    rows = make_rows(5)
    frame = bytearray(
        wire.encode_batch(Batch(first_seq=1, rows=rows, runs=(SymbolRun(symbol="EURUSD", count=5),)))
    )
    frame[-3] ^= 1
    await client.socket.send(bytes(frame))
    nack = await client.nack()
    assert (nack.code, nack.expected) == (NackCode.BAD_CRC, 1)
    await client.batch(1, rows)
    await client.acknowledged(5)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", NackCode.MALFORMED),
        (b"\x01", NackCode.MALFORMED),
        (b"\x02\x03\x00\x00", NackCode.VERSION_UNSUPPORTED),
        (b"\x01\x63\x00\x00", NackCode.MALFORMED),
        (b"\x01\x03\x00\x00", NackCode.MALFORMED),
        (b"\x01\x02\x00\x00{}", NackCode.MALFORMED),
        (b"\x01\x06\x00\x00{", NackCode.MALFORMED),
        (b'\x01\x06\x00\x00{"tallies":[{"symbol":"E","day":1,"rows":1,"first_seq":1,"last_seq":1,"checksum":"x"}]}',
         NackCode.MALFORMED),
        (b'\x01\x07\x00\x00{"code":"NOPE","at_ms":1}', NackCode.MALFORMED),
        ("text", NackCode.MALFORMED),
    ],
)  # fmt: skip
async def test_nonsense_gets_a_typed_refusal(client: Wire, frame: bytes | str, code: NackCode) -> None:
    await client.resume()
    await client.socket.send(frame)
    assert (await client.nack()).code is code
    assert await client.close_code() == wire.CLOSE_CODES[code]


def _packed(first_seq: int, count: int, runs: bytes, run_count: int, rows: bytes) -> bytes:
    import zlib

    body = struct.pack("<QIiqI", first_seq, count, 0, 0, run_count) + runs + rows
    return struct.pack("<BBHI", 1, 3, 0, zlib.crc32(body)) + body


EURUSD = struct.pack("<IB", 1, 6) + b"EURUSD"


@pytest.mark.parametrize(
    "frame",
    [
        _packed(1, 0, b"", 0, b""),
        _packed(0, 1, EURUSD, 1, bytes(60)),
        _packed(1, 2, EURUSD, 1, bytes(120)),
        _packed(1, 1, EURUSD, 1, bytes(59)),
        _packed(1, 1, EURUSD, 2, bytes(60)),
        _packed(1, 1, struct.pack("<IB", 1, 0), 1, bytes(60)),
        _packed(1, 1, struct.pack("<IB", 1, 2) + b"\xff\xfe", 1, bytes(60)),
        _packed(1, 1, struct.pack("<IB", 1, 200) + b"x" * 200, 1, bytes(60)),
        _packed(2**63, 1, EURUSD, 1, bytes(60)),
    ],
)
async def test_a_batch_that_contradicts_itself_is_refused(bridge: Bridge, client: Wire, frame: bytes) -> None:
    await client.resume()
    await client.socket.send(frame)
    assert (await client.nack()).code is NackCode.MALFORMED
    assert await client.close_code() == 4400
    assert await stored_seqs(bridge) == []


async def test_hello_comes_first(client: Wire) -> None:
    await client.batch(1, make_rows(1))
    assert (await client.nack()).code is NackCode.HELLO_EXPECTED
    assert await client.close_code() == 4408


async def test_silence_before_hello_ends_the_connection(client: Wire) -> None:
    assert (await client.nack()).code is NackCode.HELLO_EXPECTED


async def test_a_wrong_token_is_refused(client: Wire) -> None:
    await client.hello(token="wrong")
    nack = await client.nack()
    assert (nack.code, await client.close_code()) == (NackCode.UNAUTHORIZED, 4401)
    assert "wrong" not in nack.message.replace("wrong token", "")


async def test_an_unknown_version_is_refused(client: Wire) -> None:
    await client.hello(versions=[7])
    assert (await client.nack()).code is NackCode.VERSION_UNSUPPORTED


async def test_more_than_the_window_is_refused_and_nothing_is_lost(bridge: Bridge, client: Wire) -> None:
    resume = await client.resume()
    answers: list[bytes] = []
    with contextlib.suppress(ConnectionClosed):
        for number in range(resume.window_frames * 4):
            await client.batch(1 + number * 1_000, make_rows(1_000, first=number * 1_000))
    with contextlib.suppress(ConnectionClosed):
        while True:
            answers.append(await client.socket.recv())
    assert wire.decode_json(answers[-1], Nack).code is NackCode.WINDOW_EXCEEDED
    assert await client.close_code() == 4429
    seqs = await stored_seqs(bridge)
    assert seqs == list(range(1, len(seqs) + 1))


async def test_an_oversized_message_ends_the_connection(client: Wire) -> None:
    await client.resume()
    with contextlib.suppress(ConnectionClosed):
        await client.socket.send(bytes(wire.FRAME_BYTES_MAX + 100_000))
    await client.close_code()


async def test_a_second_install_waits_while_the_first_is_alive(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    async with dial(bridge) as other:
        await other.hello(install="install-2")
        assert (await other.nack()).code is NackCode.SOURCE_BUSY


async def test_the_same_install_takes_its_own_place(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    await client.batch(1, make_rows(100))
    await client.acknowledged(100)
    async with dial(bridge) as other:
        assert (await other.resume()).next_seq == 101
        assert await client.close_code() == 4409
        await other.batch(101, make_rows(100, first=100))
        await other.acknowledged(200)
    assert await stored_seqs(bridge) == list(range(1, 201))


async def test_a_new_install_gets_the_stores_cursors(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    await client.batch(1, make_rows(8))
    await client.acknowledged(8)
    await client.socket.close()
    async with dial(bridge) as other:
        resume = await other.resume(install="install-2", next_seq=1)
        assert (resume.epoch, resume.next_seq) == (2, 1)
        (cursor,) = resume.cursors
        assert (cursor.symbol, cursor.time_msc, cursor.count) == ("EURUSD", 1_714_557_600_002, 2)


async def test_an_install_that_was_replaced_may_not_go_on(bridge: Bridge, client: Wire) -> None:
    """Its cursor knows nothing of what its successor stored; going on would double all of that."""
    await client.resume()
    await client.batch(1, make_rows(8))
    await client.acknowledged(8)
    await client.socket.close()
    async with dial(bridge) as successor:
        await successor.resume(install="install-2", next_seq=1)
        await successor.socket.close()
    async with dial(bridge) as returned:
        await returned.hello()
        assert (await returned.nack()).code is NackCode.SPOOL_DIVERGED


@pytest.mark.parametrize(
    "changes", [{"source": "a\0b"}, {"source": ""}, {"install": ""}, {"install": "x" * 65}, {"first_seq": 0}]
)
async def test_a_hello_that_cannot_be_is_malformed(client: Wire, changes: dict[str, Any]) -> None:
    await client.hello(**changes)
    assert (await client.nack()).code is NackCode.MALFORMED


async def test_a_tally_of_an_absurd_day_is_taken(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    rows = make_rows(2)
    rows["time_msc"] = 2**62
    await client.batch(1, rows)
    await client.acknowledged(2)
    item = TallyItem(symbol="EURUSD", day=2**62 // DAY_MS, rows=2, first_seq=1, last_seq=2, checksum="00")
    await client.socket.send(wire.encode_json(FrameType.TALLY, TallyFrame(tallies=[item])))
    await client.socket.send(wire.encode_json(FrameType.PING))
    await client.frame(FrameType.PONG)


async def test_a_connector_that_hangs_up_while_it_is_admitted_leaves_no_lease(bridge: Bridge) -> None:
    for _ in range(5):
        async with dial(bridge) as hasty:
            await hasty.hello()
            hasty.socket.transport.abort()
    source = Source(name=SOURCE, tenant=TENANT)
    async with open_hub(bridge.settings, {"sources"}) as hub, asyncio.timeout(10):
        while True:
            try:
                await hub["sources"].take_lease(source, "another-bridge", 1.0)
            except Conflict:
                await asyncio.sleep(0.05)
            else:
                return


async def test_too_many_control_frames_are_refused(client: Wire) -> None:
    await client.resume()
    for _ in range(500):
        await client.socket.send(wire.encode_json(FrameType.PING))
    while wire.frame_type(frame := await client.socket.recv()) is FrameType.PONG:
        pass
    assert wire.decode_json(frame, Nack).code is NackCode.WINDOW_EXCEEDED


@pytest.mark.parametrize("spool", [{"first_seq": 1, "next_seq": 50}, {"first_seq": 150, "next_seq": 200}])
async def test_a_spool_that_cannot_be_right_is_refused(
    bridge: Bridge, client: Wire, spool: dict[str, int]
) -> None:
    await client.resume()
    await client.batch(1, make_rows(100))
    await client.acknowledged(100)
    await client.socket.close()
    async with dial(bridge) as other:
        await other.hello(**spool)
        nack = await other.nack()
        assert (nack.code, nack.expected) == (NackCode.SPOOL_DIVERGED, 101)


async def test_bad_rows_are_quarantined_with_their_reason(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    rows = make_rows(6)
    rows["bid"][1], rows["ask"][2], rows["bid"][3] = np.nan, -1.0, 9.0
    rows["time_msc"][4] = rows["time"][4] = 7
    await client.batch(1, rows)
    await client.acknowledged(6)
    reasons = [row[0] for row in await stored(bridge, "quarantine")]
    assert reasons == ["OK", "NOT_FINITE", "NEGATIVE", "CROSSED", "ABSURD_TIME", "OK"]


async def test_tallies_are_kept_only_of_durable_ticks(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    rows = make_rows(10)
    await client.batch(1, rows)
    await client.acknowledged(10)
    day = int(rows["time_msc"][0] // DAY_MS)

    def item(symbol: str, last_seq: int) -> TallyItem:
        value = f"{checksum(rows, 1):016x}"
        return TallyItem(symbol=symbol, day=day, rows=10, first_seq=1, last_seq=last_seq, checksum=value)

    tallies = TallyFrame(tallies=[item("EURUSD", 10), item("FUTURE", 11)])
    await client.socket.send(wire.encode_json(FrameType.TALLY, tallies))
    async with open_hub(bridge.settings, {"sources"}) as hub:
        async with asyncio.timeout(10):
            while not (kept := await hub["sources"].recorded_tallies(SOURCE, 1, None)):
                await asyncio.sleep(0.01)
    assert [(tally.symbol, tally.checksum) for tally in kept] == [("EURUSD", checksum(rows, 1))]


async def test_a_ping_is_answered(client: Wire) -> None:
    await client.resume()
    await client.socket.send(wire.encode_json(FrameType.PING))
    await client.frame(FrameType.PONG)


async def test_a_half_closed_connection_keeps_what_it_sent(bridge: Bridge) -> None:
    async with dial(bridge) as client:
        await client.resume()
        await client.batch(1, make_rows(50))
        await client.acknowledged(50)
        raw = client.socket.transport.get_extra_info("socket")
        raw.shutdown(socket.SHUT_WR)
        await client.close_code()
    async with dial(bridge) as again:
        assert (await again.resume()).next_seq == 51


async def test_the_stream_carries_durable_quotes_and_counts_what_it_skips(
    bridge: Bridge, client: Wire
) -> None:
    await client.resume()
    headers = {"Authorization": f"Bearer {bridge.token()}"}
    async with connect(bridge.url + "/v1/stream?symbols=EURUSD", additional_headers=headers) as stream:
        await client.batch(1, make_rows(100), symbol="OTHER")
        await client.batch(101, make_rows(1))
        await client.acknowledged(101)
        first = msgspec.json.decode(await stream.recv())
        assert [item["symbol"] for item in first["items"]] == ["EURUSD"]
        await client.batch(102, make_rows(5, first=1))
        await client.acknowledged(106)
        second = msgspec.json.decode(await stream.recv())["items"][0]
        assert (second["seq"], second["skipped"]) == (106, 4)


async def test_a_new_token_alone_leaves_the_chosen_symbols_as_they_are(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    async with connect(bridge.url + "/v1/stream?symbols=EURUSD") as stream:
        await stream.send(f'{{"token": "{bridge.token()}"}}')
        await client.batch(1, make_rows(100), symbol="OTHER")
        await client.batch(101, make_rows(1))
        await client.acknowledged(101)
        quotes = msgspec.json.decode(await stream.recv())
        assert [item["symbol"] for item in quotes["items"]] == ["EURUSD"]


@pytest.mark.parametrize(
    "changes",
    [{"aud": "other"}, {"exp": 1}, {"scope": "orders:read"}, {"tenant": ""}],
)
async def test_the_stream_refuses_a_token_that_is_not_for_it(bridge: Bridge, changes: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {bridge.token(**changes)}"}
    async with connect(bridge.url + "/v1/stream", additional_headers=headers) as stream:
        await stream.recv()
        await stream.wait_closed()
        assert stream.close_code in (4401, 4403)


async def test_a_stream_ends_when_its_token_is_revoked(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    headers = {"Authorization": f"Bearer {bridge.token(jti='soon-revoked')}"}
    async with connect(bridge.url + "/v1/stream", additional_headers=headers) as stream:
        await client.batch(1, make_rows(1))
        await stream.recv()
        async with open_hub(bridge.settings, {"revocations"}) as hub:
            await hub["revocations"].revoke("token:soon-revoked", time.time() + 600)
        async with asyncio.timeout(10):
            await stream.wait_closed()
        assert stream.close_code == 4401


async def test_a_foreign_tenants_quotes_are_not_streamed(bridge: Bridge, client: Wire) -> None:
    await client.resume()
    headers = {"Authorization": f"Bearer {bridge.token(tenant='other')}"}
    async with connect(bridge.url + "/v1/stream", additional_headers=headers) as stream:
        await client.batch(1, make_rows(10))
        await client.acknowledged(10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await stream.recv()


def test_the_small_http_answers(bridge: Bridge) -> None:
    answers = {
        path: http_status(bridge.port, path) for path in ("/livez", "/readyz", "/metrics", "/nope", wire.PATH)
    }
    assert answers == {"/livez": 200, "/readyz": 200, "/metrics": 200, "/nope": 404, wire.PATH: 426}


async def test_a_subscriber_that_floods_is_told_and_closed(bridge: Bridge) -> None:
    headers = {"Authorization": f"Bearer {bridge.token()}"}
    async with connect(bridge.url + "/v1/stream", additional_headers=headers) as stream:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(100):
                await stream.send('{"symbols": ["EURUSD"]}')
        await stream.wait_closed()
        assert (stream.close_code, stream.close_reason) == (4429, "RATE_LIMITED")
