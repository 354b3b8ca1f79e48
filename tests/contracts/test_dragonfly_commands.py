"""Dragonfly can take Redis' place: every command we send is fully supported there, and scripts declare their keys.

No Dragonfly runs here. What is checked is our side, in the code and on the wire, against Dragonfly's documentation.
"""

import asyncio
import contextlib
import dataclasses
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis

from core.adapters.redis.records import RedisRecords
from core.adapters.redis.schema import StepText
from core.adapters.redis.scripts import SCRIPTS
from core.infrastructure.central_hub import open_hub
from core.infrastructure.schemas import steps
from core.model.records import RecordKind, Watchlist
from core.settings import Settings
from tests import dragonfly
from tests.bridges import Bridge, build_bridge, dial, make_rows
from tests.engines import House, wait_for
from tests.gateways import FrontDoor, build, running

_CALL = re.compile(r"redis\.p?call\(\s*'(\w+)'\s*,\s*(\w+)\[")
_ANY_CALL = re.compile(r"redis\.p?call\(")


def test_the_code_sends_no_command_and_no_option_that_nobody_has_looked_up() -> None:
    assert dragonfly.commands_in_code() == dragonfly.SENT, (
        "look it up in Dragonfly's table, then see tests/dragonfly.py"
    )


def test_the_code_calls_no_client_method_that_nobody_has_looked_up() -> None:
    called = dragonfly.calls_in_code()
    assert set(called) <= set(dragonfly.CALLED), "look it up, then see tests/dragonfly.py"
    for method, keywords in called.items():
        assert keywords <= dragonfly.KEYWORDS.get(method, set()), method


def test_every_command_sent_is_fully_supported() -> None:
    assert dragonfly.all_sent() <= dragonfly.FULLY


def test_every_option_sent_is_documented() -> None:
    for command, options in dragonfly.SENT.items():
        assert options <= dragonfly.OPTIONS.get(command, set()), command


def test_nothing_sent_goes_through_everything_or_waits_for_an_append_only_file() -> None:
    assert not dragonfly.NEVER & (dragonfly.all_sent() | commands_in_scripts())


def test_every_command_of_a_migration_is_fully_supported() -> None:
    texts = [msgspec.json.decode(step.sql, type=StepText) for step in steps("redis")]
    assert {command[0] for text in texts for command in text.commands} <= dragonfly.FULLY


def commands_in_scripts() -> set[str]:
    return {command for script in SCRIPTS.values() for command, _ in _CALL.findall(script)}


def test_every_command_of_a_script_is_fully_supported() -> None:
    assert commands_in_scripts() <= dragonfly.FULLY


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_takes_its_keys_from_those_it_is_given_only(name: str) -> None:
    calls = _CALL.findall(SCRIPTS[name])
    assert len(calls) == len(_ANY_CALL.findall(SCRIPTS[name])) > 0
    assert {argument for _, argument in calls} == {"KEYS"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_uses_nothing_that_lua_5_1_and_5_4_do_differently(name: str) -> None:
    # Valkey and Redis run Lua 5.1, Dragonfly 5.4.
    assert not re.search(r"\b(unpack|table\.getn|loadstring|setfenv|math\.pow)\b|//|[&|~]\s|/", SCRIPTS[name])


@dataclasses.dataclass
class Recording:
    """Whatever reaches the server, as MONITOR tells it."""

    client: redis.Redis
    commands: set[str] = dataclasses.field(default_factory=set)
    in_scripts: set[str] = dataclasses.field(default_factory=set)

    def listen(self, monitor: Any) -> None:
        for line in monitor.listen():
            words = line["command"].split(" ", 2)
            command = words[0].upper()
            if command in {"CLIENT", "SCRIPT"}:
                command = f"{command} {words[1].upper()}"
            if command == "ECHO":
                return
            (self.in_scripts if line["client_type"] == "lua" else self.commands).add(command)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self.client.monitor() as monitor:
            thread = threading.Thread(target=self.listen, args=(monitor,))
            thread.start()
            try:
                yield
            finally:
                self.client.execute_command("ECHO", "the end")
                thread.join(10)


@pytest.fixture
def recording(queue_valkey: redis.Redis) -> Recording:
    return Recording(queue_valkey)


def test_everything_that_reaches_the_server_is_listed(
    house: House, queue_house: House, recording: Recording, tmp_path: Path
) -> None:
    """A gateway, a worker, a bridge, an export, cancelled jobs, watchlists: all on one server that is listened to."""
    settings = msgspec.structs.replace(house.settings, redis=queue_house.settings.redis)
    door = build(tmp_path / "door", dataclasses.replace(house, settings=settings))
    with recording.running(), running(door, []):
        use_bridge(door.settings, tmp_path)
        use_door(door)
        asyncio.run(use_services(door.settings))
    assert recording.commands <= dragonfly.all_sent()
    assert recording.in_scripts <= commands_in_scripts()
    assert {"BLMPOP", "SUBSCRIBE", "PUBLISH", "EVALSHA", "HSET", "MULTI", "INCRBY"} <= recording.commands
    assert {"HSET", "ZADD", "PEXPIRE"} <= recording.in_scripts


def use_bridge(settings: Settings, tmp_path: Path) -> None:
    bridge = build_bridge(settings, tmp_path)
    bridge.start()
    try:
        bridge.wait_ready()
        asyncio.run(send_ticks(bridge))
    finally:
        bridge.stop()


async def send_ticks(bridge: Bridge) -> None:
    async with dial(bridge) as wire:
        await wire.resume()
        await wire.batch(1, make_rows(10))
        await wire.acknowledged(10)


def use_door(door: FrontDoor) -> None:
    with door.signed_in() as http:
        for path in ("/v1/symbols", "/v1/quotes?symbols=EURUSD", "/v1/ticks?symbol=EURUSD"):
            answer = http.get(path)
            assert answer.status_code == 200, answer.text
        exported = http.get("/v1/ticks/export?symbol=EURUSD")
        assert exported.status_code == 200, exported.text
        asked = http.get("/v1/ticks?symbol=EURUSD", headers={"Prefer": "wait=0"})
        if asked.status_code == 202:
            wait_for(lambda: http.get(asked.headers["Location"]).status_code == 200, "the job's answer")
        assert http.get("/v1/queues").status_code == 200
    wait_for(lambda: httpx.get(f"{door.url}/readyz").status_code == 200, "the gateway being ready")


async def use_services(settings: Settings) -> None:
    async with open_hub(settings, {"brief_records", "queue_control", "latest_quotes"}) as hub:
        keeper: RedisRecords = hub["brief_records"]
        body = Watchlist(title="All", symbols=["EURUSD"])
        await keeper.create(RecordKind.WATCHLISTS, "demo", "a", body, version="1" * 32)
        await keeper.page(RecordKind.WATCHLISTS, "demo", after=None, limit=10, where={})
        await keeper.delete(RecordKind.WATCHLISTS, "demo", "a", expected=None)
        await hub["latest_quotes"].get("demo", None)
