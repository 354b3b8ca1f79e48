"""The connector: a terminal's feed on one side, the spool in the middle, the link to the bridge on the other."""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from bridge.connector.cursor import CursorState
from bridge.connector.link import Link
from bridge.connector.order_desk import OrderDesk
from bridge.connector.order_journal import OrderJournal
from bridge.connector.reading import Reading
from bridge.connector.spool_thread import SpoolThread
from bridge.connector.status import Status, write_status
from bridge.connector.terminal import TerminalInfo
from bridge.connector.terminal_process import TerminalProcess
from bridge.connector.trading import Trading
from core.errors.exceptions import Misconfigured, TickgateError, Unavailable
from core.infrastructure.signing_keys import read_public_keys
from core.messages.order_seals import CommandKeys
from core.messages.wire import NoticeCode, Resume
from core.model.ticks import UTC_OFFSET_UNKNOWN
from core.settings import ConnectorSettings

log = structlog.get_logger(__name__)

STATUS_INTERVAL_S: Final = 1.0
HEALTH_INTERVAL_S: Final = 5.0
STOP_TIMEOUT_S: Final = 3.0
STOP_READING_TIMEOUT_S: Final = 1.0


class Connector:
    """One source's connector. `run` until cancelled; `stop` lets it end cleanly."""

    def __init__(self, settings: ConnectorSettings) -> None:
        if not settings.spool_directory:
            raise Misconfigured(
                "set TICKGATE_CONNECTOR_SPOOL_DIRECTORY: ticks wait there until they are acknowledged"
            )
        self._settings = settings
        self._directory = Path(settings.spool_directory)
        self._spool = SpoolThread()
        self._terminal = TerminalProcess(
            settings.terminal,
            _options(settings),
            self._directory,
            settings.call_timeout_s,
            lambda code, detail: self._notice(code, detail, ""),
        )
        self._reading = Reading(self._terminal, self._spool, settings, self._notice)
        self._journal = OrderJournal()
        # The feed measures the clock; it begins with another meter each time it is opened.
        trading = Trading(self._terminal, self._journal, settings, lambda: self._reading.feed.offset.offset_s)
        self._desk = OrderDesk(trading, self._journal, settings, _order_keys(settings))
        self._link = Link(settings, self._spool, self._on_resume, self._on_diverged, self._desk.take)
        self._stopping = asyncio.Event()
        self._connected = True

    def stop(self) -> None:
        """Ask for a clean end: no more reading, what is on its way is still acknowledged if that is quick."""
        self._stopping.set()

    async def run(self) -> None:
        """Raises: Misconfigured, Corrupt, Conflict: what a person must put right."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._spool.close)
            await self._spool.open(self._directory, self._settings.spool_bytes_max)
            stack.push_async_callback(self._journal.close)
            if self._settings.orders:
                await self._journal.open(self._directory)
            stack.push_async_callback(self._terminal.close)
            if self._spool.state.started:
                self._reading.start()
            try:
                await self._run()
            except* TickgateError as group:
                raise _first(group) from None

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._link.run()),
                tasks.create_task(self._report()),
                tasks.create_task(self._watch_terminal()),
            ]
            if self._settings.orders:
                background.append(tasks.create_task(self._desk.run()))
            reading = tasks.create_task(self._reading.run())
            await self._stopping.wait()
            log.info("connector.stopping")
            with suppress(TimeoutError):
                # Let a round end by itself; a hanging terminal is not waited for, what it holds is read next time.
                async with asyncio.timeout(STOP_READING_TIMEOUT_S), self._reading.lock:
                    reading.cancel()
            reading.cancel()
            await self._finish()
            for task in background:
                task.cancel()

    async def _finish(self) -> None:
        """Give the bridge a moment to acknowledge what it has, and tell it the tallies."""
        with suppress(TimeoutError):
            # An order that is being sent is answered for; nothing new is begun.
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._desk.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                session = self._link.session
                while session is not None and session.acked_seq < self._spool.state.next_seq - 1:
                    await asyncio.sleep(0.02)
                    session = self._link.session
                if session is not None:
                    await session.settle()

    async def _watch_terminal(self) -> None:
        """Ask now and then whether the terminal is connected; the question starts a dead one again."""
        while True:
            await asyncio.sleep(HEALTH_INTERVAL_S)
            try:
                info: TerminalInfo = await self._terminal.call("terminal_info")
            except Unavailable as e:
                log.warning("terminal.unavailable", error=str(e))
                continue
            if self._connected and not info.connected:
                self._notice(NoticeCode.TERMINAL_DISCONNECTED, "the terminal has lost its trade server", "")
            self._connected = info.connected

    # -- the bridge ----------------------------------------------------------------------------------

    async def _on_resume(self, resume: Resume) -> None:
        if self._spool.state.started:
            return
        cursors = {c.symbol: CursorState(time_msc=c.time_msc, count=c.count) for c in resume.cursors}
        await self._spool.start(cursors)
        log.info("spool.started", epoch=resume.epoch, cursors=len(cursors))
        self._reading.start()

    async def _on_diverged(self) -> None:
        """Spool and store cannot both be right: a new life, read on from where the store stands."""
        async with self._reading.lock:
            self._reading.halt()
            await self._spool.start_epoch()

    def _notice(self, code: NoticeCode, detail: str, symbol: str) -> None:
        self._link.notice(code, detail, symbol)

    # -- status --------------------------------------------------------------------------------------

    async def _report(self) -> None:
        loop = asyncio.get_running_loop()
        written_at_s = float("-inf")
        was_drained = False
        while True:
            drained = await self._drained()
            if drained != was_drained or loop.time() - written_at_s >= STATUS_INTERVAL_S:
                was_drained, written_at_s = drained, loop.time()
                self._write(self.status(drained=drained))
            await asyncio.sleep(STATUS_INTERVAL_S / 10)

    async def _drained(self) -> bool:
        session, spool = self._link.session, self._spool.state
        if not self._reading.read_to_end or session is None or session.acked_seq < spool.next_seq - 1:
            return False
        if session.settled_seq != session.acked_seq:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await session.settle()
        return session.settled_seq == session.acked_seq

    def status(self, *, drained: bool = False, failure: str = "") -> Status:
        spool = self._spool.state
        offset_s = self._reading.feed.offset.offset_s
        state = "failed" if failure else "drained" if drained else self._link.state
        return Status(
            state=state,
            source=self._settings.source,
            install=spool.install,
            epoch=self._link.epoch,
            next_seq=spool.next_seq,
            acked_seq=spool.first_seq - 1,
            pending_batches=spool.pending_batches,
            pending_bytes=spool.pending_bytes,
            spool_full=self._reading.spool_full,
            terminal=self._terminal.state,
            terminal_restarts=max(0, self._terminal.restarts),
            symbols=len(self._reading.feed.symbols),
            utc_offset_s=None if offset_s == UTC_OFFSET_UNKNOWN else offset_s,
            drained=drained,
            problem=failure or self._reading.problem or self._link.problem,
            pid=os.getpid(),
            at_ms=time.time_ns() // 1_000_000,
        )

    def fail(self, problem: str) -> None:
        """Say in the status file why this connector ends."""
        if self._directory.is_dir():
            self._write(self.status(failure=problem))

    def _write(self, status: Status) -> None:
        try:
            write_status(self._directory, status)
        except OSError as e:
            log.warning("status.not_written", error=str(e))


def _order_keys(settings: ConnectorSettings) -> CommandKeys:
    """Return the keys orders may be signed with. Raises: Misconfigured."""
    if not settings.orders:
        return CommandKeys([])
    if not settings.order_keys_file:
        raise Misconfigured(
            "set TICKGATE_CONNECTOR_ORDER_KEYS_FILE: only orders that are signed with one of its keys are carried out",
            code="ORDER_KEYS_MISSING",
        )
    return CommandKeys(read_public_keys(Path(settings.order_keys_file)))


def _options(settings: ConnectorSettings) -> dict[str, Any]:
    try:
        options = msgspec.json.decode(settings.terminal_options)
    except msgspec.DecodeError as e:
        raise Misconfigured(f"TICKGATE_CONNECTOR_TERMINAL_OPTIONS is no JSON: {e}") from e
    if not isinstance(options, Mapping):
        raise Misconfigured("TICKGATE_CONNECTOR_TERMINAL_OPTIONS is no JSON object")
    return dict(options)


def _first(group: BaseExceptionGroup[TickgateError]) -> TickgateError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
