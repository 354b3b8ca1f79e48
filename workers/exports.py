"""Exports: all ticks or bars of a symbol, written page by page into an answer stream at its reader's pace."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import msgspec
import structlog

from core.errors.exceptions import Invalid
from core.infrastructure.central_hub import Hub
from core.infrastructure.import_manager import resolve
from core.messages.jobs import (
    EXPORT_CONTENT_TYPES,
    INTERVAL_MS,
    Answer,
    BarExportOrder,
    BarExportQuery,
    BarPrice,
    ExportFormat,
    ExportOrder,
    ExportQuery,
    Interval,
)
from core.ports.answers import AnswerStreams, AnswerWriter
from core.ports.jobs import JobFunction
from core.ports.ticks import ExportPages, SourceRegistry
from core.settings import Settings, WorkerSettings
from core.telemetry import metrics, tracing
from workers.export_places import ExportPlaces
from workers.ownership import owned_sources

log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 1_800.0
TRIES: Final = 1
"""What its reader has read cannot be taken back, so a second run has nobody to write to."""
PLACE_PATIENCE_S: Final = 0.5
COLUMN_FILES: Final = {
    ExportFormat.ARROW: "core.market.column_files:ArrowFile",
    ExportFormat.PARQUET: "core.market.column_files:ParquetFile",
}
TICK_FILE: Final = "core.market.mt5_files:TickCsvFile"
BAR_FILE: Final = "core.market.mt5_bar_files:BarCsvFile"


class _File(Protocol):
    def add(self, page: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Text:
    """A file that is nothing but its pages."""

    def add(self, page: bytes) -> bytes:
        return page

    def finish(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportKind:
    """What can be exported. mt5_file: makes the file as MetaTrader has it."""

    function: str
    order: type[ExportOrder | BarExportOrder]
    pages: ExportPages[Any]
    mt5_file: Callable[[Any], _File]

    def file(self, query: ExportQuery) -> _File:
        if query.format is ExportFormat.MT5:
            return self.mt5_file(query)
        make: Callable[[], _File] = (
            resolve(COLUMN_FILES[query.format]) if query.format in COLUMN_FILES else _Text
        )
        return make()


@dataclass(slots=True, kw_only=True)
class Exports:
    """Answers exports, a few at a time. threads: where files are written, so that the loop stays free."""

    limits: WorkerSettings
    registry: SourceRegistry
    tick_pages: ExportPages[ExportQuery]
    bar_pages: ExportPages[BarExportQuery]
    streams: AnswerStreams
    threads: ThreadPoolExecutor = field(init=False)
    places: ExportPlaces = field(init=False)

    def __post_init__(self) -> None:
        self.threads = ThreadPoolExecutor(self.limits.exports_max, thread_name_prefix="export")
        self.places = ExportPlaces(self.limits.exports_max, PLACE_PATIENCE_S)

    def functions(self) -> Sequence[JobFunction]:
        kinds = (
            ExportKind(
                function="market.export", order=ExportOrder, pages=self.tick_pages, mt5_file=_tick_file
            ),
            ExportKind(
                function="market.export_bars", order=BarExportOrder, pages=self.bar_pages, mt5_file=_bar_file
            ),
        )
        return [
            JobFunction(name=kind.function, run=partial(self._run, kind), timeout_s=TIMEOUT_S, tries=TRIES)
            for kind in kinds
        ]

    async def _run(
        self, kind: ExportKind, _ctx: Mapping[str, Any], request: Any, *, tenant: str, traceparent: str = ""
    ) -> Answer:
        tracing.start(traceparent)
        try:
            order = msgspec.convert(request, kind.order)
        except msgspec.ValidationError as e:
            raise Invalid(str(e)) from e
        query = order.query
        owned = await owned_sources(self.registry, tenant, query.source)
        async with self.places.one(tenant):
            sources = await kind.pages.sources(query, owned, self.limits.export_rows_max)
            async with self.streams.writing(order.stream) as writer:
                await _while_read(writer, self._write(kind, query, sources, writer))
        return Answer(content_type=EXPORT_CONTENT_TYPES[query.format], body=b"")

    async def _write(
        self, kind: ExportKind, query: ExportQuery, sources: Sequence[str], writer: AnswerWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(kind.pages.pages(query, sources)) as pages:
            file = await loop.run_in_executor(self.threads, kind.file, query)
            async for page in pages:
                part = await loop.run_in_executor(self.threads, file.add, page)
                metrics.EXPORT_BYTES.labels(query.format).inc(len(part))
                await writer.write(part)
        await writer.write(await loop.run_in_executor(self.threads, file.finish))
        await writer.end()


def functions(hub: Hub, settings: Settings) -> Sequence[JobFunction]:
    """Return the exports over this hub's services."""
    exports = Exports(
        limits=settings.worker,
        registry=hub["sources"],
        tick_pages=hub["tick_pages"],
        bar_pages=hub["bar_pages"],
        streams=hub["answer_streams"],
    )
    return exports.functions()


def _tick_file(_query: ExportQuery) -> _File:
    make: Callable[[], _File] = resolve(TICK_FILE)
    return make()


def _bar_file(query: BarExportQuery) -> _File:
    make: Callable[..., _File] = resolve(BAR_FILE)
    return make(
        daily=INTERVAL_MS[query.interval] >= INTERVAL_MS[Interval.D1],
        digits=query.digits,
        halved=query.price is BarPrice.MID,
    )


async def _while_read(writer: AnswerWriter, work: Coroutine[Any, Any, None]) -> None:
    """Carry out `work`, or give it up once nobody reads any more."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(writer.abandoned())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not leaving.done():
            await working
        else:
            log.info("export.abandoned")
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
