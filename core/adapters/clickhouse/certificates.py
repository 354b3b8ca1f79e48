"""The store's side of completeness certificates: counts, distinct seqs and checksums, computed where the ticks lie."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from core.adapters.clickhouse.client import ClickHouse
from core.market.checksum import FIELD_MULTIPLIERS, FINAL_MULTIPLIER, FINAL_SHIFT, SEQ_MULTIPLIER
from core.model.ticks import Tally
from core.ports.ticks import EpochAudit, StoredTally
from core.settings import Settings

_MS_PER_DAY: Final = 86_400_000
_FLOATS: Final = frozenset({"bid", "ask", "last", "volume_real"})


def _row_hash() -> str:
    """The formula of `core.market.checksum.row_hashes` in SQL; UInt64 arithmetic wraps in both."""
    mixed = f"toUInt64(seq * {SEQ_MULTIPLIER})"
    steps = [f"{mixed} as h0"]
    for number, (field, multiplier) in enumerate(FIELD_MULTIPLIERS.items()):
        bits = (
            f"reinterpretAsUInt64({field})"
            if field in _FLOATS or field == "time_msc"
            else f"toUInt64({field})"
        )
        previous = f"h{number}"
        steps.append(
            f"bitXor({previous}, bitShiftRight({previous}, 29)) + {bits} * {multiplier} as h{number + 1}"
        )
    last = f"h{len(FIELD_MULTIPLIERS)}"
    steps.append(f"bitXor({last}, bitShiftRight({last}, {FINAL_SHIFT})) * {FINAL_MULTIPLIER} as f")
    steps.append(f"bitXor(f, bitShiftRight(f, {FINAL_SHIFT})) as row_hash")
    return ", ".join(steps)


class ClickHouseCertifier:
    """The `Certifier` port on ClickHouse."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    async def sources(self) -> Sequence[str]:
        rows = await self._clickhouse.rows("select distinct source from ticks order by source", {})
        return [row[0] for row in rows]

    async def epochs(self, source: str) -> Sequence[EpochAudit]:
        rows = await self._clickhouse.rows(
            "select source, epoch, count(), uniqExact(seq), min(seq), max(seq), countIf(quarantine != 'OK')"
            " from ticks where source = {source:String}"
            " group by source, epoch order by epoch",
            {"source": source},
        )
        return [
            EpochAudit(
                source=row[0],
                epoch=row[1],
                rows=row[2],
                distinct=row[3],
                first_seq=row[4],
                last_seq=row[5],
                quarantined=row[6],
            )
            for row in rows
        ]

    async def tally(self, source: str, epoch: int, tally: Tally) -> StoredTally:
        rows = await self._clickhouse.rows(
            f"select count(), sum(row_hash) from (select {_row_hash()} from ticks"
            " where source = {source:String} and symbol = {symbol:String} and epoch = {epoch:UInt32}"
            " and time_msc >= {start:Int64} and time_msc < {stop:Int64} and seq <= {last:UInt64})",
            {
                "source": source,
                "symbol": tally.symbol,
                "epoch": epoch,
                "start": max(-(2**63), tally.day * _MS_PER_DAY),
                "stop": min(2**63 - 1, (tally.day + 1) * _MS_PER_DAY),
                "last": tally.last_seq,
            },
        )
        return StoredTally(rows=int(rows[0][0]), checksum=int(rows[0][1]))


@asynccontextmanager
async def open_certifier(
    _settings: Settings, services: Mapping[str, Any]
) -> AsyncIterator[ClickHouseCertifier]:
    yield ClickHouseCertifier(services["clickhouse"])
