"""The connector's side of the terminal process: ask it, watch it, kill it when it hangs, start it again."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from bridge.connector.pipe import LENGTH, RESULTS, Answer, Call, Open, body_length, pack
from bridge.connector.terminal import (
    IPC_CODES,
    TerminalDied,
    TerminalHung,
    TerminalLate,
    TerminalRefused,
    Traits,
)
from core.errors.exceptions import Misconfigured, TickgateError, Unavailable
from core.messages.wire import NoticeCode

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S: Final = 120.0
"""Connecting to a trade server takes its time: the package itself waits 60 s."""
RESTART_PAUSE_S: Final = 0.25
RESTART_PAUSE_S_MAX: Final = 30.0
SETTLED_AFTER_S: Final = 60.0
"""A terminal that lived this long is restarted without delay."""
CLOSE_TIMEOUT_S: Final = 2.0
PIPE_BUFFER_BYTES: Final = 4 * 1024**2

OnNotice = Callable[[NoticeCode, str], None]


class TerminalProcess:
    """One terminal in its own process. Calls run one at a time, in order; any of them may find it gone."""

    def __init__(
        self,
        adapter: str,
        options: dict[str, Any],
        directory: Path,
        call_timeout_s: float,
        on_notice: OnNotice,
    ) -> None:
        self._opening = Open(adapter=adapter, options=options, directory=str(directory))
        self._call_timeout_s = call_timeout_s
        self._on_notice = on_notice
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        self._decoder = msgspec.msgpack.Decoder(Answer)
        self._pause_s = 0.0
        self._started_at_s = 0.0
        self.restarts = -1
        self.state = "starting"
        self.traits = Traits()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def call(self, name: str, *arguments: Any) -> Any:
        """Return the result of one call.

        Raises: TerminalRefused (it answered None), TerminalHung, TerminalDied, Unavailable (it cannot be started),
            Misconfigured.
        """
        result = (await self.calls([Call(name=name, arguments=list(arguments))]))[0]
        if isinstance(result, TerminalRefused | TerminalLate):
            raise result
        return result

    async def calls(self, calls: Sequence[Call]) -> list[Any]:
        """Ask several things in one go; a refused one is a TerminalRefused in its place, one too late a TerminalLate.

        Raises: TerminalHung, TerminalDied, Unavailable, Misconfigured.
        """
        async with self._lock:
            process = await self._running()
            try:
                return await self._ask(process, calls)
            except (TickgateError, asyncio.CancelledError):
                # Its answers can no longer be matched to calls.
                await self._kill()
                raise

    async def close(self) -> None:
        """Let the terminal shut down; kill it when it does not."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await process.wait()
        await self._kill()

    async def _ask(self, process: Process, calls: Sequence[Call]) -> list[Any]:
        assert process.stdin is not None
        try:
            process.stdin.write(b"".join(pack(call) for call in calls))
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as e:
            raise TerminalDied("the terminal's process ended") from e
        return [self._result(call, await self._answer(process, call.name)) for call in calls]

    async def _answer(self, process: Process, name: str, timeout_s: float | None = None) -> Answer:
        assert process.stdout is not None
        timeout_s = timeout_s or self._call_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                length = body_length(await process.stdout.readexactly(LENGTH.size))
                body = await process.stdout.readexactly(length)
        except TimeoutError as e:
            raise TerminalHung(f"{name} did not return within {timeout_s:g} s; its process was killed") from e
        except (asyncio.IncompleteReadError, ConnectionError) as e:
            raise TerminalDied("the terminal's process ended", detail=f"during {name}") from e
        return self._decoder.decode(body)

    def _result(self, call: Call, answer: Answer) -> Any:
        if answer.raised:
            raise Unavailable(answer.text, code=answer.raised)
        if answer.late:
            return TerminalLate(f"it was too late for {call.name}")
        if answer.value is not None:
            return RESULTS[call.name](answer.value)
        refusal = TerminalRefused(call.name, answer.code, answer.text)
        if answer.code in IPC_CODES:
            self._say(NoticeCode.TERMINAL_DISCONNECTED, refusal.public)
            raise TerminalDied(refusal.public)
        return refusal

    async def _running(self) -> Process:
        """Return the process, started and initialized if there is none."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        if self._process is not None:
            await self._kill()
        await asyncio.sleep(self._next_pause_s())
        process = await self._spawn()
        self._process = process
        try:
            await self._initialize(process)
        except BaseException:
            await self._kill()
            raise
        self.restarts += 1
        self.state = "running"
        if self.restarts:
            self._say(NoticeCode.TERMINAL_RESTARTED, f"restart {self.restarts}, pid {process.pid}")
        return process

    async def _spawn(self) -> Process:
        self.state = "starting"
        self._started_at_s = asyncio.get_running_loop().time()
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "bridge.connector.terminal_host"),
            stdin=PIPE,
            stdout=PIPE,
            limit=PIPE_BUFFER_BYTES,
        )

    async def _initialize(self, process: Process) -> None:
        assert process.stdin is not None
        process.stdin.write(pack(self._opening))
        answer = await self._answer(process, "initialize", OPEN_TIMEOUT_S)
        if answer.raised:
            raise Misconfigured(answer.text, code=answer.raised)
        if answer.value is None:
            raise TerminalRefused("initialize", answer.code, answer.text)
        self.traits = RESULTS["traits"](answer.value)

    def _next_pause_s(self) -> float:
        lived_s = asyncio.get_running_loop().time() - self._started_at_s
        if not self._started_at_s or lived_s > SETTLED_AFTER_S:
            self._pause_s = 0.0
            return 0.0
        self._pause_s = min(max(RESTART_PAUSE_S, self._pause_s * 2), RESTART_PAUSE_S_MAX)
        return self._pause_s

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self.state = "down"
        with suppress(ProcessLookupError):
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        # Shielded: a cancelled caller must not leave a killed child unreaped.
        await asyncio.shield(process.wait())

    def _say(self, code: NoticeCode, detail: str) -> None:
        log.warning("terminal.notice", code=code.value, detail=detail)
        self._on_notice(code, detail)
