"""Write the topology down, and bring it back: each document as it lies there, but for what ArangoDB itself gives it."""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec

from core.adapters.arango.client import Arango
from core.adapters.arango.documents import FLOWS, SERVICES
from core.adapters.arango.records import one, rows
from core.ports.backups import Epochs, Sink
from core.settings import Settings

PARTS: Final = (SERVICES, FLOWS)
"""In the order in which they can be loaded: a flow leads between services."""
BATCH: Final = 500

_PAGE: Final = (
    "FOR d IN @@kind FILTER d._key > @after SORT d._key LIMIT @limit RETURN UNSET(d, '_id', '_rev')"
)
_ANY: Final = "FOR d IN @@kind LIMIT 1 RETURN d.tenant"
_CLEAR: Final = "FOR d IN @@kind REMOVE d IN @@kind"
_LOAD: Final = "FOR document IN @documents INSERT document INTO @@kind"


class ArangoSnapshot:
    """The `Snapshot` port on ArangoDB: each document as it is when it is read."""

    def __init__(self, arango: Arango) -> None:
        self._arango = arango
        self.parts: Sequence[str] = PARTS

    async def write(self, part: str, sink: Sink) -> None:
        after = ""
        while True:
            bound = {"@kind": part, "after": after, "limit": BATCH}
            found = await self._arango.ask(partial(rows, query=_PAGE, bound=bound))
            if not found:
                return
            # Keys are hexadecimal, which sorts the same by any language's rules.
            after = found[-1]["_key"]
            await sink(b"".join(msgspec.json.encode(document) + b"\n" for document in found), len(found))


class ArangoLoading:
    """The `Loading` port on ArangoDB."""

    def __init__(self, arango: Arango) -> None:
        self._arango = arango

    async def occupied(self) -> str:
        for part in PARTS:
            bound = {"@kind": part}
            tenant = await self._arango.ask(partial(one, query=_ANY, bound=bound))
            if tenant is not None:
                return f"{part} of {tenant}"
        return ""

    async def clear(self) -> None:
        for part in reversed(PARTS):
            bound = {"@kind": part}
            await self._arango.ask(partial(rows, query=_CLEAR, bound=bound))

    def order(self, parts: Collection[str]) -> Sequence[str]:
        return sorted(parts, key=PARTS.index)

    async def load(self, part: str, pieces: AsyncIterable[bytes]) -> int:
        count = 0
        async for piece in pieces:
            documents = [msgspec.json.decode(line) for line in piece.splitlines()]
            bound = {"@kind": part, "documents": documents}
            await self._arango.ask(partial(rows, query=_LOAD, bound=bound))
            count += len(documents)
        return count


class ArangoDumps:
    """The `Dumps` port on ArangoDB."""

    def __init__(self, arango: Arango) -> None:
        self._arango = arango

    @asynccontextmanager
    async def snapshot(self, _epochs: Epochs) -> AsyncIterator[ArangoSnapshot]:
        yield ArangoSnapshot(self._arango)

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[ArangoLoading]:
        yield ArangoLoading(self._arango)


@asynccontextmanager
async def open_dumps(_settings: Settings, services: Mapping[str, Any]) -> AsyncIterator[ArangoDumps]:
    yield ArangoDumps(services["arango"])
