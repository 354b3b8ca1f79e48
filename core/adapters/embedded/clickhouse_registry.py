"""The queries running now, from their first byte on: what `system.processes` shows and KILL QUERY stops."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from core.adapters.embedded.clickhouse_errors import (
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    EngineError,
    cancelled,
    refusal,
)

QUERIES_MAX: Final = 200
_QUERY_TEXT_BYTES_MAX: Final = 2_000
_PROCESSES: Final = (
    "(SELECT * EXCEPT (token), query_id AS initial_query_id, user AS initial_user "
    "FROM REGISTERED AS registered LEFT JOIN "
    "(SELECT * EXCEPT (query_id, query, user, elapsed, initial_query_id, initial_user), "
    "Settings['log_comment'] AS token FROM system.processes) AS engine USING (token))"
)


@dataclass(slots=True, eq=False)
class Running:
    """One query on its way. token: its mark inside the engine, which gives queries ids of its own.

    It leaves the registry only when nothing of it can happen any more, even if its client left long before.
    """

    query_id: str
    user: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    query: str = ""
    started_s: float = field(default_factory=time.monotonic)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: EngineError | None = None
    # Goes on when its client leaves: what changes something, once it has been received whole.
    carried_through: bool = False
    # Stops others and is stopped by none, or two of them would wait for each other.
    kills: bool = False
    _interrupt: Callable[[], None] | None = None

    def stop(self, reason: EngineError) -> None:
        """Make it end. Whatever it is doing is interrupted; what it would do next it does not begin."""
        if self.stopped is None:
            self.stopped = reason
            if self._interrupt is not None:
                self._interrupt()

    def on_stop(self, interrupt: Callable[[], None] | None) -> None:
        """Say how what happens now is interrupted.

        Raises:
            EngineError: it has been stopped already.
        """
        self._interrupt = interrupt
        self.check()

    def client_left(self) -> None:
        if not self.carried_through:
            self.stop(cancelled())

    def check(self) -> None:
        if self.stopped is not None:
            raise self.stopped


class Registry:
    """Owned by the event loop; other threads only read `Running.stopped`."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}

    def admit(self, query_id: str, user: str) -> Running:
        """Enter a query.

        Raises:
            EngineError: its id is running already, or too many are.
        """
        if query_id in self._running:
            raise refusal(
                QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                f"Query with id = {query_id} is already running.",
                "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
            )
        if len(self._running) >= QUERIES_MAX:
            raise refusal(
                TOO_MANY_SIMULTANEOUS_QUERIES,
                f"Too many simultaneous queries. Maximum: {QUERIES_MAX}",
                "TOO_MANY_SIMULTANEOUS_QUERIES",
            )
        running = Running(query_id, user)
        self._running[query_id] = running
        return running

    def leave(self, running: Running) -> None:
        self._running.pop(running.query_id, None)
        running.finished.set()

    def all(self) -> list[Running]:
        return list(self._running.values())

    def stoppable(self, tokens: Iterable[str]) -> list[Running]:
        wanted = set(tokens)
        return [r for r in self._running.values() if r.token in wanted and not r.kills]

    async def stop(self, victims: Iterable[Running], *, wait: bool) -> None:
        chosen = list(victims)
        for running in chosen:
            running.stop(cancelled())
        if wait:
            await asyncio.gather(*(running.finished.wait() for running in chosen))

    def as_table(self) -> str:
        """Write the running queries as a subquery that stands in for `system.processes`.

        The engine's own figures (rows, memory) are joined by token where the query has reached the engine.
        """
        now = time.monotonic()
        rows = ", ".join(
            f"({_quoted(r.token)}, {_quoted(r.query_id)}, {_quoted(r.query)}, {_quoted(r.user)}, "
            f"{now - r.started_s:.6f})"
            for r in self._running.values()
        )
        columns = "token String, query_id String, query String, user String, elapsed Float64"
        return _PROCESSES.replace("REGISTERED", f"values({_quoted(columns)}, {rows})", 1)

    def choosing(self, condition: str) -> str:
        """Write the question which tokens `condition` is true for."""
        rows = self.as_table().replace("SELECT * EXCEPT (token),", "SELECT *,", 1)
        return f"SELECT token FROM {rows} WHERE {condition}"


def kill_report(killed: Iterable[Running], status: str) -> str:
    """Write the statement that answers what KILL QUERY answers."""
    columns = _quoted("kill_status String, query_id String, user String, query String")
    rows = ", ".join(
        f"({_quoted(status)}, {_quoted(r.query_id)}, {_quoted(r.user)}, {_quoted(r.query)})" for r in killed
    )
    source = f"values({columns}, {rows})" if rows else f"null({columns})"
    return f"SELECT * FROM {source}"


def describe(head: bytes) -> str:
    return head[:_QUERY_TEXT_BYTES_MAX].decode("utf-8", "replace")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0") + "'"
