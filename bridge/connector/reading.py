"""Read the terminal, round after round, into the spool; stop while that is full, go on when it has room."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from bridge.connector.feed import Feed
from bridge.connector.spool_file import SpoolFull
from bridge.connector.spool_thread import SpoolThread
from bridge.connector.terminal_process import TerminalProcess
from core.errors.exceptions import Corrupt, Misconfigured, Unavailable
from core.messages.wire import NoticeCode
from core.settings import ConnectorSettings

log = structlog.get_logger(__name__)

TERMINAL_PAUSE_S: Final = 0.5
SPOOL_FULL_PAUSE_S: Final = 0.5
SPOOL_RESUME_FRACTION: Final = 0.8
"""A full spool is read into again when it has been drained below this part of its limit."""
SYMBOLS_PER_ROUND_MAX: Final = 1_000


class Reading:
    """The reading half of a connector. lock: held during a round; read_to_end: a recording was read to its end."""

    def __init__(
        self,
        terminal: TerminalProcess,
        spool: SpoolThread,
        settings: ConnectorSettings,
        say: Callable[[NoticeCode, str, str], None],
    ) -> None:
        self._terminal = terminal
        self._spool = spool
        self._settings = settings
        self._say = say
        self._started = asyncio.Event()
        self._reopen = True
        self.feed = Feed(terminal, spool, settings, say)
        self.lock = asyncio.Lock()
        self.spool_full = False
        self.read_to_end = False
        self.problem = ""

    def start(self) -> None:
        """The spool knows where to begin: read from there."""
        self._reopen = True
        self._started.set()

    def halt(self) -> None:
        """Read nothing more until `start`. Only under `lock`."""
        self._started.clear()
        self.read_to_end = False

    async def run(self) -> None:
        """Read until cancelled. Raises: Corrupt, Misconfigured."""
        interval_s = self._settings.poll_interval_ms / 1_000
        loop = asyncio.get_running_loop()
        while True:
            await self._started.wait()
            next_at_s = loop.time() + interval_s
            try:
                async with self.lock:
                    again = await self._round()
            except SpoolFull as e:
                await self._wait_for_room(e)
                continue
            except (Corrupt, Misconfigured):
                raise
            except Unavailable as e:
                self.problem = str(e)
                log.warning("terminal.unavailable", error=str(e))
                await asyncio.sleep(TERMINAL_PAUSE_S)
                continue
            self.problem = ""
            if self.spool_full and self._started.is_set():
                self._say_resumed()
            if not again:
                await asyncio.sleep(max(0.0, next_at_s - loop.time()))

    async def _round(self) -> bool:
        """Read every symbol once; return whether more is waiting."""
        if not self._started.is_set():
            return False
        if self._reopen:
            await self._open_feed()
        # Asked first: what is added after this cannot be overlooked.
        finished = bool(await self._terminal.call("finished")) if self._terminal.traits.replays else False
        symbols = self.feed.symbols
        rounds = [
            await self.feed.round(symbols[at : at + SYMBOLS_PER_ROUND_MAX])
            for at in range(0, len(symbols), SYMBOLS_PER_ROUND_MAX)
        ]
        again = any(part.again for part in rounds)
        quiet = not again and not any(part.rows or part.refused for part in rounds)
        if quiet or not again:
            await self.feed.check_late()
        self.read_to_end = finished and quiet
        return again

    async def _open_feed(self) -> None:
        symbols = await self._symbols()
        await self.feed.open(symbols, await self._spool.cursors())
        self._reopen = False
        log.info("feed.opened", symbols=len(symbols), first=symbols[:10])

    async def _symbols(self) -> list[str]:
        """Return the symbols to read, selected in the terminal."""
        wanted = self._settings.symbols or [info.name for info in await self._terminal.call("symbols_get")]
        if not wanted:
            raise Misconfigured("the terminal has no symbols", code="NO_SYMBOLS")
        missing = [
            symbol for symbol in wanted if not await self._terminal.call("symbol_select", symbol, True)
        ]
        if missing:
            log.error("feed.symbols_missing", symbols=missing)
        if len(missing) == len(wanted):
            raise Misconfigured(
                f"the terminal has none of the symbols {', '.join(missing[:20])}", code="NO_SYMBOLS"
            )
        return [symbol for symbol in wanted if symbol not in missing]

    async def _wait_for_room(self, reason: SpoolFull) -> None:
        """Stop reading until the bridge has taken some: nothing is dropped, history closes the gap afterwards."""
        if not self.spool_full:
            # Once an episode: the next try may find it as full as this one did.
            self.spool_full = True
            log.error("spool.full", error=str(reason), pending_bytes=self._spool.state.pending_bytes)
            self._say(NoticeCode.SPOOL_FULL, reason.public, "")
        full_bytes = self._spool.state.pending_bytes
        limit_bytes = min(self._settings.spool_bytes_max, max(full_bytes, 1)) * SPOOL_RESUME_FRACTION
        while self._spool.state.pending_bytes > limit_bytes:  # noqa: ASYNC110 - seconds long, and it is not urgent
            await asyncio.sleep(SPOOL_FULL_PAUSE_S)
        if full_bytes <= limit_bytes:
            # The disk is full of something else.
            await asyncio.sleep(SPOOL_FULL_PAUSE_S)

    def _say_resumed(self) -> None:
        self.spool_full = False
        log.warning("spool.resumed", pending_bytes=self._spool.state.pending_bytes)
        self._say(NoticeCode.SPOOL_RESUMED, f"{self._spool.state.pending_bytes:,} bytes pending", "")
