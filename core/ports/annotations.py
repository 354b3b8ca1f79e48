"""Annotations: records of the store of ticks, asked for by their place on the market's clock as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from core.ports.records import Records

if TYPE_CHECKING:
    from core.model.records import Annotation, Record


class Annotations(Records, Protocol):
    """The records of kind annotations."""

    async def marks(
        self,
        tenant: str,
        symbol: str,
        *,
        start_ms: int | None,
        stop_ms: int | None,
        after: tuple[int, str] | None,
        limit: int,
    ) -> Sequence[Record[Annotation]]:
        """Return up to `limit` that touch a stretch of a symbol's time, in the order of (start_ms, id).

        start_ms, stop_ms: both inclusive, UTC epoch ms, None for no bound; one that lasts touches what any moment
        of it lies in. after: the start_ms and id of the last one seen. Raises: Unavailable.
        """
