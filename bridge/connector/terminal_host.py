"""The terminal's own process: runs one adapter, answers calls on a pipe, may be killed at any moment."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bridge.connector.pipe import LENGTH, RESULTS, Answer, Call, Open, body_length, pack, pack_result
from bridge.connector.terminal import Terminal
from core.errors.exceptions import Misconfigured, TickgateError
from core.infrastructure.import_manager import resolve
from core.infrastructure.process import die_with_parent


def main() -> int:
    """Serve until standard input closes."""
    die_with_parent(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    if sys.platform != "win32":
        # Ctrl-C reaches the whole group; the connector decides when its terminal ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, _private_stdout()
    opening = _read(source)
    if opening is None:
        return 0
    terminal = _open(msgspec.msgpack.decode(opening, type=Open), sink)
    if terminal is None:
        return 1
    try:
        _serve(terminal, source, sink)
    finally:
        terminal.shutdown()
    return 0


def _private_stdout() -> BinaryIO:
    """Keep the pipe for answers alone: what a library prints goes to standard error."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sink


def _open(opening: Open, sink: BinaryIO) -> Terminal | None:
    try:
        terminal: Terminal = resolve(opening.adapter)(opening.options, Path(opening.directory))
        initialized = terminal.initialize()
    except TickgateError as e:
        _write(sink, Answer(raised=e.code, text=e.public))
        return None
    except TypeError as e:
        text = f"{opening.adapter} is no terminal adapter: {e}"
        _write(sink, Answer(raised=Misconfigured.default_code, text=text))
        return None
    if not initialized:
        code, text = terminal.last_error()
        _write(sink, Answer(code=code, text=text))
        return None
    _write(sink, Answer(value=pack_result(terminal.traits())))
    return terminal


def _serve(terminal: Terminal, source: BinaryIO, sink: BinaryIO) -> None:
    decoder = msgspec.msgpack.Decoder(Call)
    while (message := _read(source)) is not None:
        _write(sink, _answer(terminal, decoder.decode(message)))


def _answer(terminal: Terminal, call: Call) -> Answer:
    if call.name not in RESULTS:
        return Answer(raised="INVALID_REQUEST", text=f"a terminal has no {call.name!r}")
    if call.valid_until_ms and call.valid_until_ms <= time.time_ns() // 1_000_000:
        return Answer(late=True)
    try:
        result: Any = getattr(terminal, call.name)(*call.arguments, **call.named)
    except TickgateError as e:
        return Answer(raised=e.code, text=e.public)
    if result is None:
        code, text = terminal.last_error()
        return Answer(code=code, text=text)
    return Answer(value=pack_result(result))


def _read(source: BinaryIO) -> bytes | None:
    """Return the next message, None when the other side is gone."""
    prefix = source.read(LENGTH.size)
    if len(prefix) < LENGTH.size:
        return None
    length = body_length(prefix)
    body = source.read(length)
    return body if len(body) == length else None


def _write(sink: BinaryIO, answer: Answer) -> None:
    sink.write(pack(answer))
    sink.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.exit(0)
