"""Annotations by their place on the market's clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from core.errors.exceptions import Invalid
from core.infrastructure.central_hub import Hub
from core.messages.annotations import MarkQuery, after_cursor, mark_cursor
from core.messages.jobs import Answer
from core.ports.annotations import Annotations
from core.ports.jobs import JobFunction
from core.settings import Settings
from core.telemetry import tracing
from workers.records import page_of

EPOCH_MS_MAX: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationJobs:
    """Answers what is asked of annotations only."""

    keeper: Annotations

    def functions(self) -> Sequence[JobFunction]:
        return [JobFunction(name="annotations.range", run=self.range)]

    async def range(
        self, _ctx: Mapping[str, Any], request: Any, *, tenant: str, traceparent: str = ""
    ) -> Answer:
        tracing.start(traceparent)
        try:
            asked = msgspec.convert(request, MarkQuery)
        except msgspec.ValidationError as e:
            raise Invalid(str(e)) from e
        found = await self.keeper.marks(
            tenant,
            asked.symbol,
            start_ms=_clamped(asked.start_ms),
            stop_ms=_clamped(asked.stop_ms),
            after=None if asked.cursor is None else after_cursor(asked.cursor),
            limit=asked.limit + 1,
        )
        page = found[: asked.limit]
        last = page[-1] if len(found) > asked.limit else None
        return page_of(page, None if last is None else mark_cursor(last.body.start_ms, last.id))


def _clamped(moment_ms: int | None) -> int | None:
    """Keep a bound within what the store can compare; no annotation lies beyond."""
    return None if moment_ms is None else max(-EPOCH_MS_MAX, min(moment_ms, EPOCH_MS_MAX))


def functions(hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    """Return the functions over this hub's keeper of annotations."""
    return AnnotationJobs(keeper=hub["tick_records"]).functions()
