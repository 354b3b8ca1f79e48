"""The database queue's job functions: market reads of one tenant, over the sources that tenant owns."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from core.errors.exceptions import Invalid, Unavailable
from core.infrastructure.central_hub import Hub
from core.market.completeness import certify
from core.messages.jobs import (
    JOBS,
    Answer,
    BarQuery,
    CompletenessQuery,
    QuarantineQuery,
    QuoteQuery,
    SymbolQuery,
    TickQuery,
)
from core.messages.message import Message
from core.ports.jobs import JobFunction
from core.ports.ticks import Certifier, LatestQuotes, SourceRegistry, TickReader
from core.settings import Settings
from core.telemetry import tracing
from workers.answering import JSON_TYPE
from workers.caching import CachedReads
from workers.ownership import chosen
from workers.turns import Turns

LARGE_ROWS_MIN: Final = 5_000
LARGE_READS_MAX: Final = 2
Handler = Callable[[Any, Sequence[str], str], Awaitable[Answer]]
"""Answers a question of a tenant over its sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketReads:
    """Answers market questions."""

    registry: SourceRegistry
    reader: TickReader
    quotes_kept: LatestQuotes
    certifier: Certifier
    cached: CachedReads | None = None
    owned: Turns[str, Sequence[str]] = field(default_factory=Turns)
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_READS_MAX))

    def functions(self) -> Sequence[JobFunction]:
        """Return every market read, each with its name in the job table."""
        handlers: Mapping[str, Handler] = {
            "market.symbols": self.symbols,
            "market.quotes": self.quotes,
            "market.ticks": self.ticks,
            "market.bars": self.bars,
            "market.quarantine": self.quarantine,
            "market.completeness": self.completeness,
        }
        return [
            JobFunction(name=name, run=self._job(JOBS[name].request, handler))
            for name, handler in handlers.items()
        ]

    async def symbols(self, query: SymbolQuery, sources: Sequence[str], tenant: str) -> Answer:
        if self.cached and sources:
            return await self.cached.symbols(query, sources, tenant)
        return await self.reader.symbols(sources)

    async def ticks(self, query: TickQuery, sources: Sequence[str], _tenant: str) -> Answer:
        async with self._room(query.limit):
            return await self.reader.ticks(query, sources)

    async def bars(self, query: BarQuery, sources: Sequence[str], tenant: str) -> Answer:
        if self.cached and sources:
            return await self.cached.bars(query, sources, tenant)
        return await self.reader.bars(query, sources)

    async def quarantine(self, query: QuarantineQuery, sources: Sequence[str], _tenant: str) -> Answer:
        async with self._room(query.limit):
            return await self.reader.quarantine(query, sources)

    async def quotes(self, query: QuoteQuery, sources: Sequence[str], _tenant: str) -> Answer:
        """Read the fast copy, and from the store what is missing there."""
        symbols = list(dict.fromkeys(query.symbols))
        found: list[bytes] = []
        missing: dict[tuple[str, ...], list[str]] = {}
        for source in sources:
            kept = await self._kept(source, symbols)
            found.extend(kept.values())
            if absent := tuple(symbol for symbol in symbols if symbol not in kept):
                missing.setdefault(absent, []).append(source)
        for absent, theirs in missing.items():
            found.extend(await self.reader.last_quotes(theirs, absent))
        return _listed(found)

    async def completeness(self, query: CompletenessQuery, sources: Sequence[str], _tenant: str) -> Answer:
        certificates = await certify(self.certifier, self.registry, sources, query.day)
        return _listed([msgspec.json.encode(certificate) for certificate in certificates])

    async def _kept(self, source: str, symbols: Sequence[str]) -> Mapping[str, bytes]:
        try:
            return await self.quotes_kept.get(source, symbols)
        except Unavailable:
            # The store knows as well, only slower.
            return {}

    def _room(self, rows: int) -> AbstractAsyncContextManager[None]:
        """Let large pages be read a few at a time: each is held several times over until it has been sent."""
        return self.large if rows > LARGE_ROWS_MIN else nullcontext()

    def _job(self, kind: type[Message], handler: Handler) -> Callable[..., Awaitable[Answer]]:
        async def run(_ctx: Mapping[str, Any], request: Any, *, tenant: str, traceparent: str = "") -> Answer:
            tracing.start(traceparent)
            try:
                query = msgspec.convert(request, kind)
            except msgspec.ValidationError as e:
                raise Invalid(str(e)) from e
            # Every kind of this queue names at most one source.
            owned = await self.owned.ask(tenant, lambda: self.registry.sources_of(tenant))
            sources = chosen(owned, getattr(query, "source", None))
            return await handler(query, sources, tenant)

        return run


def functions(hub: Hub, settings: Settings) -> Sequence[JobFunction]:
    """Return the market reads over this hub's services."""
    cached = CachedReads(hub["tick_reader"], hub["cache"], hub["tick_changes"], settings.cache)
    reads = MarketReads(
        registry=hub["sources"],
        reader=hub["tick_reader"],
        quotes_kept=hub["latest_quotes"],
        certifier=hub["certifier"],
        cached=cached if settings.cache.enabled else None,
    )
    return reads.functions()


def _listed(items: Sequence[bytes]) -> Answer:
    body = b'{"items":[' + b",".join(items) + b'],"next_cursor":null}'
    return Answer(content_type=JSON_TYPE, body=body, rows=len(items))
