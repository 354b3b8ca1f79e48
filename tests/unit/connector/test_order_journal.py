"""What was asked of the terminal is known afterwards, however this process ended."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.connector import order_journal
from bridge.connector.order_journal import FILE_NAME, Found, OrderJournal
from bridge.connector.trade_view import Sent
from core.errors.exceptions import Conflict, Corrupt, Misconfigured
from core.model.orders import Side

SENT = Sent(tag="T1", magic=2**63 - 1, symbol="EURUSD", side=Side.SELL, at_ms=5)

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from bridge.connector.order_journal import OrderJournal
async def main():
    journal = OrderJournal()
    await journal.open(Path(sys.argv[1]))
    await journal.begin("c1", 5, None)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.fixture
async def journal(tmp_path):
    journal = OrderJournal()
    await journal.open(tmp_path)
    yield journal
    await journal.close()


async def test_a_command_is_new_then_begun_then_answered(journal):
    assert await journal.find("c1") is None
    await journal.begin("c1", 5, SENT)
    assert await journal.find("c1") == Found(reply=None)
    await journal.finish("c1", b"reply", 7)
    assert await journal.find("c1") == Found(reply=b"reply")
    (sent,) = await journal.sent()
    assert (sent.tag, sent.magic, sent.side, sent.ticket) == ("T1", 2**63 - 1, Side.SELL, 7)


async def test_what_sends_no_order_is_no_order(journal):
    await journal.begin("c1", 5, None)
    assert await journal.sent() == []


async def test_what_was_begun_survives_kill_9(tmp_path):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    journal = OrderJournal()
    await journal.open(tmp_path)
    assert await journal.find("c1") == Found(reply=None)
    await journal.close()


async def test_only_so_many_commands_are_remembered(journal, monkeypatch):
    monkeypatch.setattr(order_journal, "ROWS_MAX", 3)
    for number in range(6):
        await journal.begin(f"c{number}", number, SENT)
    assert [sent.at_ms for sent in await journal.sent()] == [3, 4, 5]
    assert await journal.find("c2") is None


async def test_a_second_connector_is_refused(journal, tmp_path, monkeypatch):
    monkeypatch.setattr(order_journal, "LOCK_TIMEOUT_S", 0.1)
    await journal.begin("c1", 5, None)
    other = OrderJournal()
    with pytest.raises(Conflict):
        await other.open(tmp_path)
    await other.close()


async def test_a_damaged_file_stops_the_connector(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1_000)
    journal = OrderJournal()
    with pytest.raises(Corrupt):
        await journal.open(tmp_path)
    await journal.close()


async def test_another_versions_file_is_left_alone(tmp_path):
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version=9")
    connection.close()
    journal = OrderJournal()
    with pytest.raises(Misconfigured):
        await journal.open(tmp_path)
    await journal.close()


def test_the_file_is_for_nobody_else(tmp_path):
    directory = tmp_path / "spool"
    subprocess.run([sys.executable, "-c", KILLED, str(directory)], check=False)
    assert Path(directory).stat().st_mode & 0o077 == 0
    assert os.path.exists(directory / FILE_NAME)
