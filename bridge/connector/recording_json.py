"""Recordings as JSON lines: a hello, ticks with prices as decimal strings, a bye."""

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import msgspec
import numpy as np

from bridge.connector.recording_common import FOREX_DIGITS, Recording, bad_line, in_order, numbered_lines
from core.model.ticks import TICK_DTYPE


class _Hello(msgspec.Struct):
    symbol: str
    digits: int = FOREX_DIGITS
    server_utc_offset_s: int | None = None


class _Tick(msgspec.Struct):
    time_ms: int
    bid: str | float
    ask: str | float
    last: str | float
    volume: str | float
    flags: int


class _Kind(msgspec.Struct):
    type: str


def read_json(text: bytes, name: PurePath) -> Recording:
    lines = numbered_lines(text)
    hello = _decode(lines[0], _Hello, name)
    ticks = [_decode(line, _Tick, name) for line in lines[1:] if b'"tick"' in line[1]]
    for line in lines:
        if b'"tick"' not in line[1]:
            _decode(line, _Kind, name)
    rows = np.zeros(len(ticks), TICK_DTYPE)
    rows["time_msc"] = [tick.time_ms for tick in ticks]
    rows["time"] = rows["time_msc"] // 1_000
    numbers = [number for number, line in lines[1:] if b'"tick"' in line]
    columns: dict[str, Callable[[_Tick], Any]] = {
        "bid": lambda tick: tick.bid,
        "ask": lambda tick: tick.ask,
        "last": lambda tick: tick.last,
        "volume_real": lambda tick: tick.volume,
    }
    for field, value in columns.items():
        rows[field] = [
            _json_float(value(tick), field, at, name) for tick, at in zip(ticks, numbers, strict=True)
        ]
    rows["volume"] = rows["volume_real"].astype(np.uint64)
    rows["flags"] = [tick.flags for tick in ticks]
    return Recording(
        symbol=hello.symbol, rows=in_order(rows), digits=hello.digits, utc_offset_s=hello.server_utc_offset_s
    )


def _decode(line: tuple[int, bytes], kind: Any, name: PurePath) -> Any:
    try:
        return msgspec.json.decode(line[1], type=kind)
    except msgspec.DecodeError as e:
        raise bad_line(name, line[0], str(e)) from e


def _json_float(value: str | float, field: str, line: int, name: PurePath) -> float:
    try:
        return float(value)
    except ValueError:
        raise bad_line(name, line, f"{field} is {value!r}, which is no number") from None
