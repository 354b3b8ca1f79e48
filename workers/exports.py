"""Exports: all ticks of a symbol, written page by page into an answer stream at the pace of whoever reads it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import structlog

from core.errors.exceptions import Invalid
from core.infrastructure.central_hub import Hub
from core.infrastructure.import_manager import resolve
from core.messages.jobs import EXPORT_CONTENT_TYPES, Answer, ExportFormat, ExportOrder, ExportQuery
from core.ports.answers import AnswerStreams, AnswerWriter
from core.ports.jobs import JobFunction
from core.ports.ticks import SourceRegistry, TickPages
from core.settings import Settings, WorkerSettings
from core.telemetry import metrics, tracing
from workers.export_places import ExportPlaces
from workers.ownership import owned_sources

log = structlog.get_logger(__name__)

NAME: Final = "market.export"
TIMEOUT_S: Final = 1_800.0
TRIES: Final = 1
"""What its reader has read cannot be taken back, so a second run has nobody to write to."""
PLACE_PATIENCE_S: Final = 0.5
COLUMN_FILES: Final = {
    ExportFormat.ARROW: "core.market.tick_files:ArrowFile",
    ExportFormat.PARQUET: "core.market.tick_files:ParquetFile",
    ExportFormat.MT5: "core.market.mt5_files:TickCsvFile",
}


class _File(Protocol):
    def add(self, page: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Text:
    """A file that is nothing but its pages."""

    def add(self, page: bytes) -> bytes:
        return page

    def finish(self) -> bytes:
        return b""


@dataclass(slots=True, kw_only=True)
class TickExports:
    """Answers exports, a few at a time. threads: where files are written, so that the loop stays free."""

    limits: WorkerSettings
    registry: SourceRegistry
    tick_pages: TickPages
    streams: AnswerStreams
    threads: ThreadPoolExecutor = field(init=False)
    places: ExportPlaces = field(init=False)

    def __post_init__(self) -> None:
        self.threads = ThreadPoolExecutor(self.limits.exports_max, thread_name_prefix="export")
        self.places = ExportPlaces(self.limits.exports_max, PLACE_PATIENCE_S)

    def functions(self) -> Sequence[JobFunction]:
        return [JobFunction(name=NAME, run=self._run, timeout_s=TIMEOUT_S, tries=TRIES)]

    async def _run(
        self, _ctx: Mapping[str, Any], request: Any, *, tenant: str, traceparent: str = ""
    ) -> Answer:
        tracing.start(traceparent)
        try:
            order = msgspec.convert(request, ExportOrder)
        except msgspec.ValidationError as e:
            raise Invalid(str(e)) from e
        query = order.query
        owned = await owned_sources(self.registry, tenant, query.source)
        async with self.places.one(tenant):
            sources = await self.tick_pages.sources(query, owned, self.limits.export_rows_max)
            async with self.streams.writing(order.stream) as writer:
                await _while_read(writer, self._write(query, sources, writer))
        return Answer(content_type=EXPORT_CONTENT_TYPES[query.format], body=b"")

    async def _write(self, query: ExportQuery, sources: Sequence[str], writer: AnswerWriter) -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(self.tick_pages.pages(query, sources)) as pages:
            file = await loop.run_in_executor(self.threads, _file, query.format)
            async for page in pages:
                part = await loop.run_in_executor(self.threads, file.add, page)
                metrics.EXPORT_BYTES.labels(query.format).inc(len(part))
                await writer.write(part)
        await writer.write(await loop.run_in_executor(self.threads, file.finish))
        await writer.end()


def functions(hub: Hub, settings: Settings) -> Sequence[JobFunction]:
    """Return the export over this hub's services."""
    exports = TickExports(
        limits=settings.worker,
        registry=hub["sources"],
        tick_pages=hub["tick_pages"],
        streams=hub["answer_streams"],
    )
    return exports.functions()


def _file(form: ExportFormat) -> _File:
    make: Callable[[], _File] = resolve(COLUMN_FILES[form]) if form in COLUMN_FILES else _Text
    return make()


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
