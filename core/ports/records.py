"""Records: create, read, list, update and delete, the same for every store that keeps some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from core.model.records import Body, Record, RecordKind


class Records(Protocol):
    """The records of one store. What belongs to another tenant is not found.

    version: given to a write by whoever asks for it, different for each. A write that is asked for again with the
    version it has made already changes nothing and answers as it did then, so it may be asked for until it answers.
    """

    async def create(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, version: str
    ) -> Record[Any]:
        """Keep a new record.

        Raises: Conflict (code RECORD_EXISTS); of topology also NotFound (code SERVICE_NOT_FOUND) where a flow names
        a service that is not there. Unavailable.
        """

    async def read(self, kind: RecordKind, tenant: str, record_id: str) -> Record[Any]:
        """Return one. Raises: NotFound (code RECORD_NOT_FOUND), Unavailable."""

    async def page(
        self, kind: RecordKind, tenant: str, *, after: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Record[Any]]:
        """Return up to `limit` whose ids follow `after`, in the order of their ids by code point.

        where: fields to their exact values, among the shelf's filters. Raises: Unavailable.
        """

    async def update(
        self, kind: RecordKind, tenant: str, record_id: str, body: Body, *, expected: str | None, version: str
    ) -> Record[Any]:
        """Replace the body. expected: the version it must still have, None for any.

        Raises: NotFound (code RECORD_NOT_FOUND), Conflict (code VERSION_MISMATCH), as `create` does of topology.
        Unavailable.
        """

    async def delete(self, kind: RecordKind, tenant: str, record_id: str, *, expected: str | None) -> None:
        """Forget a record. expected: as of `update`.

        Raises: NotFound (code RECORD_NOT_FOUND), Conflict (code VERSION_MISMATCH; of topology RECORD_IN_USE where
        flows lead to or from the service). Unavailable.
        """
