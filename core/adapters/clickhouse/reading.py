"""What every read of ticks shares: the WHERE clause, the formats, the limits, and JSON lists without Python rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core.adapters.clickhouse.client import ClickHouse, traced
from core.messages.jobs import (
    CONTENT_TYPES,
    Answer,
    BarQuery,
    ExportQuery,
    Format,
    Query,
    TickQuery,
    TimeBase,
)
from core.settings import ClickHouseSettings

STORE_FORMATS: Final[dict[Format, str]] = {
    Format.JSON: "JSONEachRow",
    Format.CSV: "CSVWithNames",
    Format.ARROW: "ArrowStream",
    Format.PARQUET: "Parquet",
}
assert set(STORE_FORMATS) == set(Format), "every format has its name in the store"

UTC_TIME: Final = "time_msc - toInt64(utc_offset_s) * 1000"
UTC_OFFSET_MS_MAX: Final = 24 * 3_600_000
"""No trade server's clock is further from UTC; it turns a bound in UTC into one the primary key knows."""
THREADS_MAX: Final = 2

SymbolQuery = TickQuery | BarQuery | ExportQuery


@dataclass(slots=True)
class Condition:
    """A WHERE clause and its server-side parameters; values never enter the text."""

    clauses: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def add(self, clause: str, **parameters: Any) -> None:
        self.clauses.append(clause)
        self.parameters.update(parameters)

    def __str__(self) -> str:
        return " and ".join(self.clauses)


def of_sources(sources: list[str]) -> Condition:
    """Begin a condition on a tenant's sources; of one source the primary key gives rows in order, without a sort."""
    condition = Condition()
    if len(sources) == 1:
        condition.add("source = {source:String}", source=sources[0])
    else:
        condition.add("source in {sources:Array(String)}", sources=sources)
    return condition


def of_symbol(query: SymbolQuery, sources: Sequence[str]) -> Condition:
    """Begin a condition on the good ticks of the query's symbol within its bounds."""
    condition = of_sources(list(sources))
    condition.add("symbol = {symbol:String}", symbol=query.symbol)
    condition.add("quarantine = 'OK'")
    between(condition, query)
    return condition


def between(condition: Condition, query: Query | ExportQuery) -> None:
    """Add the query's inclusive bounds on the clock it names."""
    slack_ms = 0
    if query.clock is TimeBase.UTC:
        slack_ms = UTC_OFFSET_MS_MAX
        condition.add("utc_offset_s is not null")
    for name, operator, bound_ms, direction in (
        ("start", ">=", query.start_ms, -1),
        ("stop", "<=", query.stop_ms, 1),
    ):
        if bound_ms is None:
            continue
        condition.add(
            f"time_msc {operator} {{{name}:Int64}}", **{name: clamp(bound_ms + direction * slack_ms)}
        )
        if slack_ms:
            condition.add(f"{UTC_TIME} {operator} {{{name}_utc:Int64}}", **{f"{name}_utc": bound_ms})


def clamp(value: int) -> int:
    """Keep a bound within Int64, where no tick lies beyond."""
    return max(-(2**63), min(value, 2**63 - 1))


class Reads:
    """Runs SELECTs within the settings' limits and returns their bodies as the store wrote them."""

    def __init__(
        self, clickhouse: ClickHouse, limits: ClickHouseSettings, threads: int = THREADS_MAX
    ) -> None:
        self._clickhouse = clickhouse
        self._settings = {
            "max_execution_time": limits.query_timeout_s,
            "max_memory_usage": limits.query_memory_bytes_max,
            "max_threads": threads,
            "output_format_json_quote_64bit_integers": 0,
            "output_format_json_quote_denormals": 1,
            "output_format_arrow_string_as_string": 1,
            "output_format_parquet_string_as_string": 1,
            # Cursors read backwards from the last line, so a page is never wider than asked.
            "optimize_read_in_order": 1,
        }

    async def body(self, select: str, condition: Condition, form: Format) -> bytes:
        """Raises: Unavailable."""
        return await self.written(select, condition, STORE_FORMATS[form])

    async def written(self, select: str, condition: Condition, store_format: str) -> bytes:
        """Return the answer in one of the store's own formats. Raises: Unavailable."""
        client = self._clickhouse.client
        body = await self._clickhouse.ask(
            client.raw_query(
                select,
                parameters=condition.parameters,
                settings=traced(self._settings),
                fmt=store_format,
            )
        )
        return bytes(body)

    async def rows(self, select: str, condition: Condition) -> list[list[Any]]:
        """Return a few rows as Python values. Raises: Unavailable."""
        client = self._clickhouse.client
        result = await self._clickhouse.ask(
            client.query(select, parameters=condition.parameters, settings=traced(self._settings))
        )
        return [list(row) for row in result.result_rows]


def json_list(lines: list[bytes], next_cursor: str | None) -> Answer:
    """Join lines of JSON into a page."""
    cursor = b'"' + next_cursor.encode() + b'"' if next_cursor else b"null"
    body = b'{"items":[' + b",".join(lines) + b'],"next_cursor":' + cursor + b"}"
    return Answer(
        content_type=CONTENT_TYPES[Format.JSON], body=body, next_cursor=next_cursor, rows=len(lines)
    )


def split_lines(body: bytes) -> list[bytes]:
    """Split the store's JSONEachRow; a line break inside a text is escaped, so each one ends a row."""
    return body.split(b"\n")[:-1] if body.endswith(b"\n") else [line for line in body.split(b"\n") if line]
