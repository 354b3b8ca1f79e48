"""The terminal's process: killed when it hangs, started again when it dies, plain about what it refuses."""

import asyncio
import json
import os
import signal
import sys

import pytest

from bridge.connector.pipe import Call
from bridge.connector.terminal import TerminalDied, TerminalHung, TerminalRefused
from bridge.connector.terminal_process import TerminalProcess
from core.errors.exceptions import Misconfigured, Unavailable
from core.messages.wire import NoticeCode

SIMULATED = "bridge.connector.simulated:SimulatedTerminal"


@pytest.fixture
def notices():
    return []


@pytest.fixture
async def start(tmp_path, notices):
    processes = []

    def started(adapter=SIMULATED, call_timeout_s=10.0, **options) -> TerminalProcess:
        process = TerminalProcess(
            adapter, options, tmp_path, call_timeout_s, lambda code, detail: notices.append(code)
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        await process.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_calls_are_answered(start):
    terminal = start()
    infos = await terminal.call("symbols_get")
    assert infos[0].name == "EURUSD"
    assert infos[0].digits == 5
    rows = await terminal.call("copy_ticks_from", "EURUSD", 1, 100, -1)
    assert len(rows) == 100
    assert rows.dtype.itemsize == 60
    assert (await terminal.call("terminal_info")).connected
    quote = await terminal.call("symbol_info_tick", "EURUSD")
    assert quote.ask > quote.bid > 0
    assert terminal.restarts == 0


async def test_a_refused_call_does_not_spoil_its_neighbours(start):
    terminal = start()
    with pytest.raises(TerminalRefused) as error:
        await terminal.call("copy_ticks_from", "NOTHING", 1, 1, -1)
    assert error.value.error_code == -4
    answers = await terminal.calls(
        [Call(name="copy_ticks_from", arguments=[s, 1, 5, -1]) for s in ("EURUSD", "NOTHING", "USDJPY")]
    )
    assert [type(answer).__name__ for answer in answers] == ["ndarray", "TerminalRefused", "ndarray"]
    with pytest.raises(Unavailable, match="has no 'order_calc_margin'"):
        await terminal.call("order_calc_margin")


async def test_a_hanging_terminal_is_killed_and_started_again(start, notices):
    terminal = start(call_timeout_s=1.5, faults={"hang": 1.0})
    await terminal.call("terminal_info")
    pid = terminal.pid
    with pytest.raises(TerminalHung, match=r"1\.5 s"):
        await terminal.call("copy_ticks_from", "EURUSD", 1, 1, -1)
    assert not alive(pid)
    assert (await terminal.call("terminal_info")).connected
    assert terminal.pid != pid
    assert notices == [NoticeCode.TERMINAL_RESTARTED]


async def test_a_killed_terminal_is_noticed_and_serves_the_same_history(start, notices):
    terminal = start()
    before = await terminal.call("copy_ticks_from", "EURUSD", 1, 500, -1)
    os.kill(terminal.pid, signal.SIGKILL)
    with pytest.raises(TerminalDied):
        # The first call may still find it alive in our books.
        await terminal.call("terminal_info")
    after = await terminal.call("copy_ticks_from", "EURUSD", 1, 500, -1)
    assert after.tobytes() == before.tobytes()
    assert notices == [NoticeCode.TERMINAL_RESTARTED]


async def test_a_cancelled_call_leaves_no_answer_behind_for_the_next(start):
    terminal = start(faults={"delay": 1.0, "delay_ms": 300})
    await terminal.call("terminal_info")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await terminal.call("copy_ticks_from", "EURUSD", 1, 5, -1)
    assert (await terminal.call("symbol_info", "USDJPY")).name == "USDJPY"


async def test_the_terminal_ends_with_its_connector(start):
    terminal = start()
    await terminal.call("terminal_info")
    pid = terminal.pid
    await terminal.close()
    assert not alive(pid)


async def test_an_orphan_dies_with_a_killed_connector(tmp_path):
    program = (
        "import asyncio, sys, time\n"
        "from pathlib import Path\n"
        "from bridge.connector.terminal_process import TerminalProcess\n"
        "async def main():\n"
        f"    terminal = TerminalProcess({SIMULATED!r}, {{}}, Path({str(tmp_path)!r}), 10.0, print)\n"
        "    await terminal.call('terminal_info')\n"
        "    print(terminal.pid, flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(5):
        while alive(pid) and "Z" not in _state(pid):
            await asyncio.sleep(0.01)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    ("adapter", "options", "said"),
    [
        ("bridge.connector.metatrader:MetaTraderTerminal", {}, "pip install MetaTrader5 \\(Windows only\\)"),
        ("bridge.connector.recording:RecordingTerminal", {"path": "/nothing"}, "No such file"),
        ("bridge.connector.nothing:Nothing", {}, "names no module"),
        (SIMULATED, {"speed": 3}, "terminal_options"),
    ],
)
async def test_what_cannot_start_says_why(start, adapter, options, said):
    with pytest.raises(Misconfigured, match=said):
        await start(adapter, **options).call("terminal_info")


async def test_options_travel_in_no_argument_list(start):
    terminal = start(symbols=["EURUSD"])
    await terminal.call("terminal_info")
    with open(f"/proc/{terminal.pid}/cmdline", "rb") as file:
        assert json.dumps("EURUSD").encode() not in file.read()
        assert terminal.pid
