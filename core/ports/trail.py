"""News that a tenant's audit trail has grown: a hint and no more, for whoever follows the trail itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class TrailNews(Protocol):
    """Told by who has written."""

    def moved(self, tenant: str) -> None:
        """Say that a tenant's trail has grown. Never waits, and is lost where nobody can be told."""


class TrailEars(Protocol):
    """Heard by who reads."""

    @property
    def listening(self) -> bool:
        """Whether news come at the moment; while they do not, look by yourself."""

    def heed(self, heard: Callable[[str | None], None]) -> None:
        """Call `heard` with each tenant whose trail has grown, with None where any may have: news were missed."""
