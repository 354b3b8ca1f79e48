"""Records: create, read, list, update and delete, the same for every kind."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from core.errors.exceptions import NotFound
from core.infrastructure.central_hub import Hub
from core.messages.jobs import JOBS, Answer
from core.messages.message import Message
from core.messages.records import (
    RecordCreation,
    RecordDeletion,
    RecordPageQuestion,
    RecordQuestion,
    RecordUpdate,
)
from core.model.records import SHELVES, Body, Deed, Record, RecordKind
from core.ports.jobs import JobFunction
from core.ports.records import Records
from core.settings import Settings
from core.telemetry import tracing
from workers.answering import JSON_TYPE, converted
from workers.turns import Turns

Run = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordJobs:
    """Does to the records of one kind what a job asks."""

    kind: RecordKind
    keeper: Records
    reading: Turns[tuple[str, str], Record[Any]] = field(default_factory=Turns)

    def functions(self) -> Sequence[JobFunction]:
        """Return what can be done to this kind, each with its name in the job table."""
        deeds: Mapping[Deed, Callable[[Any, str, int], Awaitable[Answer]]] = {
            Deed.CREATE: self.create,
            Deed.READ: self.read,
            Deed.PAGE: self.page,
            Deed.UPDATE: self.update,
            Deed.DELETE: self.delete,
        }
        return [
            JobFunction(name=f"{self.kind}.{deed}", run=self._job(deed, do)) for deed, do in deeds.items()
        ]

    async def create(self, asked: RecordCreation, tenant: str, _attempt: int) -> Answer:
        body = self._body(asked.body)
        return _one(await self.keeper.create(self.kind, tenant, asked.id, body, version=asked.version))

    async def read(self, asked: RecordQuestion, tenant: str, _attempt: int) -> Answer:
        # Not cached: to find out whether a kept record holds takes as long as to read it (docs/caching.md). But who
        # asks for the same while one read runs shares the next.
        key = (tenant, asked.id)
        return _one(await self.reading.ask(key, lambda: self.keeper.read(self.kind, tenant, asked.id)))

    async def page(self, asked: RecordPageQuestion, tenant: str, _attempt: int) -> Answer:
        found = await self.keeper.page(
            self.kind, tenant, after=asked.after, limit=asked.limit + 1, where=asked.where
        )
        page = found[: asked.limit]
        return page_of(page, page[-1].id if len(found) > asked.limit else None)

    async def update(self, asked: RecordUpdate, tenant: str, _attempt: int) -> Answer:
        body, expected = self._body(asked.body), asked.expected
        return _one(
            await self.keeper.update(
                self.kind, tenant, asked.id, body, expected=expected, version=asked.version
            )
        )

    async def delete(self, asked: RecordDeletion, tenant: str, attempt: int) -> Answer:
        try:
            await self.keeper.delete(self.kind, tenant, asked.id, expected=asked.expected)
        except NotFound:
            # The run before may have done it and died before it could say so.
            if attempt == 1:
                raise
        return Answer(content_type=JSON_TYPE, body=b"null")

    def _body(self, plain: Mapping[str, Any]) -> Body:
        body: Body = converted(plain, SHELVES[self.kind].body)
        return body

    def _job(self, deed: Deed, do: Callable[[Any, str, int], Awaitable[Answer]]) -> Run:
        request_kind = JOBS[f"{self.kind}.{deed}"].request

        async def run(ctx: Mapping[str, Any], request: Any, *, tenant: str, traceparent: str = "") -> Answer:
            tracing.start(traceparent)
            asked: Message = converted(request, request_kind)
            return await do(asked, tenant, ctx["job_try"])

        return run


def functions(hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    """Return the functions of every kind, but for accounts, which trade."""
    return [
        function
        for kind, shelf in SHELVES.items()
        if kind is not RecordKind.ACCOUNTS
        for function in RecordJobs(kind=kind, keeper=hub[shelf.keeper]).functions()
    ]


def page_of(page: Sequence[Record[Any]], cursor: str | None) -> Answer:
    """Write records as a page."""
    items = b",".join(_json(record) for record in page)
    body = b'{"items":[' + items + b'],"next_cursor":' + msgspec.json.encode(cursor) + b"}"
    return Answer(content_type=JSON_TYPE, body=body, next_cursor=cursor, rows=len(page))


def _one(record: Record[Any]) -> Answer:
    return Answer(content_type=JSON_TYPE, body=_json(record), rows=1, version=record.version)


def record_fields(record: Record[Any]) -> dict[str, Any]:
    """Return a record as it is answered: its fields beside those of its body."""
    return {
        "id": record.id,
        "version": record.version,
        "created_at_ms": record.created_at_ms,
        "updated_at_ms": record.updated_at_ms,
        **msgspec.structs.asdict(record.body),
    }


def _json(record: Record[Any]) -> bytes:
    return msgspec.json.encode(record_fields(record))
