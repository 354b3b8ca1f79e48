"""Sessions of the HTTP interface: a handle kept between requests, so that temporary tables live on."""

import time
from dataclasses import dataclass
from typing import Final

from core.adapters.embedded.clickhouse_engine import Engine, Handle
from core.adapters.embedded.clickhouse_errors import (
    SESSION_IS_LOCKED,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    refusal,
)

SESSIONS_MAX: Final = 1_000
_TIMEOUT_SECONDS_MAX: Final = 3_600.0


@dataclass(slots=True)
class _Session:
    handle: Handle
    busy: bool
    expires_s: float


class Sessions:
    """Kept by the event loop. A session serves one request at a time, as on a server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions: dict[str, _Session] = {}

    def enter(self, name: str) -> Handle:
        """Take a session, opening it if need be.

        Raises:
            EngineError: another request is using it, or there are too many.
        """
        self._expire()
        session = self._sessions.get(name)
        if session is None:
            if len(self._sessions) >= SESSIONS_MAX:
                raise refusal(
                    TOO_MANY_SIMULTANEOUS_QUERIES, "Too many sessions", "TOO_MANY_SIMULTANEOUS_QUERIES"
                )
            session = _Session(self._engine.open(""), busy=False, expires_s=0.0)
            self._sessions[name] = session
        if session.busy:
            raise refusal(
                SESSION_IS_LOCKED, f"Session {name} is locked by a concurrent client", "SESSION_IS_LOCKED"
            )
        session.busy = True
        return session.handle

    def leave(self, name: str, timeout_s: float) -> None:
        session = self._sessions[name]
        session.busy = False
        session.expires_s = time.monotonic() + min(timeout_s, _TIMEOUT_SECONDS_MAX)

    def close(self) -> None:
        for session in self._sessions.values():
            session.handle.close()
        self._sessions.clear()

    def _expire(self) -> None:
        now = time.monotonic()
        for name in [n for n, s in self._sessions.items() if not s.busy and s.expires_s < now]:
            self._sessions.pop(name).handle.close()
