"""docs/wire-protocol.md is executable: its bytes are what the codec makes and reads."""

import re
from pathlib import Path

import numpy as np
import pytest

from core.market.checksum import row_hashes
from core.messages import wire
from core.messages.order_seals import (
    CommandKeys,
    CommandSigner,
    digest_of,
    opened_reply,
    reply_key,
    sealed_reply,
    token_hash,
)
from core.messages.terminal_orders import (
    CommandKind,
    Outcome,
    TerminalCommand,
    TerminalReply,
    decode_command,
    decode_reply,
    encode_command,
    encode_reply,
)
from core.messages.wire import Batch, FrameType, Hello, Nack, NackCode
from core.model.orders import OrderState
from core.model.ticks import TICK_DTYPE, SymbolRun
from core.model.venues import VenueReport

DOCUMENT = Path(__file__).parents[2] / "docs" / "wire-protocol.md"
FIXTURES = dict(re.findall(r"```fixture (\w+)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))

ROWS = np.array(
    [
        (1714557600, 1.07101, 1.07104, 0.0, 0, 1714557600123, 6, 0.0),
        (1714557600, 1.07102, 1.07104, 0.0, 0, 1714557600123, 2, 0.0),
        (1714557600, 156.801, 156.806, 0.0, 0, 1714557600130, 6, 0.0),
    ],
    dtype=TICK_DTYPE,
)
BATCH = Batch(
    first_seq=42,
    rows=ROWS,
    runs=(SymbolRun(symbol="EURUSD", count=2), SymbolRun(symbol="USDJPY", count=1)),
    utc_offset_s=10_800,
    captured_at_ms=1_714_546_800_131,
)
HELLO = Hello(
    versions=[1],
    source="demo",
    install="5f3a",
    token="secret",
    first_seq=42,
    next_seq=45,
    agent="tickgate/0.1.0",
)
# The key pair of RFC 8032, 7.1, test 1.
KEY = {
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
SIGNER = CommandSigner(KEY)
NACK = Nack(code=NackCode.GAP, message="seq 50 leaves a gap", expected=45)


ORDER = TerminalCommand(
    id="c1",
    kind=CommandKind.CANCEL,
    tenant="demo",
    source="demo",
    made_at_ms=1_714_546_800_000,
    valid_until_ms=1_714_546_805_000,
    login=5012345,
    server="Broker-Demo",
    ticket="1001",
)
SEALED = SIGNER.sealed(encode_command(ORDER))
REPLY_KEY = reply_key(token_hash("secret"))
REPLY = TerminalReply(
    id="c1",
    outcome=Outcome.DONE,
    report=VenueReport(state=OrderState.CANCELED, order="1001", retcode=10_009),
)


def fixture(name: str) -> bytes:
    return bytes.fromhex(FIXTURES[name])


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("HELLO", wire.encode_json(FrameType.HELLO, HELLO)),
        ("BATCH", wire.encode_batch(BATCH)),
        ("ACK", wire.encode_ack(44)),
        ("NACK", wire.encode_json(FrameType.NACK, NACK)),
        ("PING", wire.encode_json(FrameType.PING)),
        ("ORDER", wire.encode_body(FrameType.ORDER, SEALED)),
        (
            "ORDER_REPLY",
            wire.encode_body(
                FrameType.ORDER_REPLY, sealed_reply(REPLY_KEY, digest_of(SEALED), encode_reply(REPLY))
            ),
        ),
    ],
)
def test_the_codec_makes_the_documented_bytes(name: str, encoded: bytes) -> None:
    assert encoded == fixture(name)


def test_the_documented_batch_reads_back_row_for_row() -> None:
    batch = wire.decode_batch(fixture("BATCH"))
    assert batch.rows.tobytes() == ROWS.tobytes()
    assert (batch.first_seq, batch.runs, batch.utc_offset_s) == (42, BATCH.runs, 10_800)
    assert (batch.captured_at_ms, batch.backfill) == (BATCH.captured_at_ms, False)


def test_the_documented_control_frames_read_back() -> None:
    assert wire.decode_json(fixture("HELLO"), Hello) == HELLO
    assert wire.decode_json(fixture("NACK"), Nack) == NACK
    assert wire.decode_ack(fixture("ACK")) == 44
    sealed, answer = (bytes(wire.body_of(fixture(name))) for name in ("ORDER", "ORDER_REPLY"))
    assert decode_command(CommandKeys([KEY]).opened(sealed)) == ORDER
    assert decode_reply(opened_reply(REPLY_KEY, digest_of(sealed), answer)) == REPLY
    assert wire.frame_type(fixture("PING")) is FrameType.PING


def test_the_documented_row_hashes_are_ours() -> None:
    assert [f"{value:016x}" for value in row_hashes(ROWS, 42)] == FIXTURES["CHECKSUM"].split()


def test_every_close_code_is_documented() -> None:
    text = DOCUMENT.read_text()
    for code, close in wire.CLOSE_CODES.items():
        assert f"| {code.value} | {close} |" in text
    for kind in FrameType:
        assert f"| {kind.value} | {kind.name} |" in text
