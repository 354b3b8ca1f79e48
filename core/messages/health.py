"""How the stores stand, as one process sees them."""

from typing import Literal

from core.messages.message import Message


class StoreReport(Message, frozen=True, kw_only=True):
    """One store. stand_in: what keeps its tables instead, empty where it is there itself. in_use, waiting, size: of
    this process' pool. failed_at_ms, last_error: when and how it last did not answer, also when it does now.
    """

    store: str
    state: Literal["pass", "fail"]
    latency_ms: float
    version: str = ""
    stand_in: str = ""
    error: str = ""
    last_error: str = ""
    failed_at_ms: int | None = None
    at_ms: int
    in_use: int | None = None
    waiting: int | None = None
    size: int | None = None


class HealthReport(Message, frozen=True, kw_only=True):
    """Every store a process uses. observer: the process."""

    observer: str
    stores: list[StoreReport]

    @property
    def failing(self) -> list[str]:
        """Name the stores that do not answer."""
        return [report.store for report in self.stores if report.state == "fail"]
