"""What each process shows beyond its machine: nothing in the clear, and its insides to operators only."""

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from joserfc.jwk import OKPKey

from core.infrastructure.open_files import FILES_KEPT
from core.messages.health import HealthReport
from core.settings import Secret, Settings, WorkerSettings
from tests.bridges import build_bridge, http_status
from tests.engines import free_port
from workers.health import serve_health

REPOSITORY = Path(__file__).parents[2]
TOKEN = "only-operators-know"
EVERYWHERE = "0.0.0.0"


@pytest.mark.parametrize(
    ("program", "section"), [("gateway", "GATEWAY"), ("bridge", "BRIDGE")], ids=["gateway", "bridge"]
)
def test_beyond_loopback_in_the_clear_it_does_not_start_and_says_why(
    program: str, section: str, tmp_path: Path
) -> None:
    key = tmp_path / "key.json"
    jwk = OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True)
    key.write_text(json.dumps({"keys": [jwk.as_dict(private=True)]}))
    found = subprocess.run(
        [sys.executable, "-m", program],
        env={f"TICKGATE_{section}_HOST": EVERYWHERE, "TICKGATE_AUTH_KEY_FILE": str(key)},
        capture_output=True,
        text=True,
        timeout=30,
        cwd=REPOSITORY,
        check=False,
    )
    assert found.returncode == 1
    assert found.stderr.startswith("error: TLS_REQUIRED"), found.stderr
    assert f"TICKGATE_{section}_BEHIND_TLS_PROXY" in found.stderr


def test_a_bridge_shows_its_insides_on_loopback_only(settings: Settings, tmp_path: Path) -> None:
    shown = {}
    for host in (EVERYWHERE, "127.0.0.1"):
        (tmp_path / host).mkdir()
        bridge = build_bridge(settings, tmp_path / host, host=host, behind_tls_proxy=host == EVERYWHERE)
        bridge.start()
        try:
            bridge.wait_ready()
            shown[host] = [
                http_status(bridge.port, "/livez", Host="rebound.example"),
                http_status(bridge.port, "/metrics"),
                http_status(bridge.port, "/metrics", Host="rebound.example"),
                http_status(bridge.port, "/metrics", Forwarded="for=127.0.0.1"),
            ]
        finally:
            bridge.stop()
    assert shown == {EVERYWHERE: [200, 404, 404, 404], "127.0.0.1": [200, 200, 404, 404]}


@asynccontextmanager
async def worker_health(token: str) -> AsyncIterator[str]:
    async def unhealthy() -> str:
        return "postgres: connection refused"

    settings = WorkerSettings(host=EVERYWHERE, health_port=free_port(), metrics_token=Secret(token))

    async def standing() -> HealthReport:
        return HealthReport(observer="worker", stores=[])

    async with serve_health(settings, settings.port_of("database"), unhealthy, standing):
        yield f"http://127.0.0.1:{settings.health_port}"


async def ask(url: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("headers", "operator"),
    [
        ({}, True),  # from this machine
        ({"X-Forwarded-For": "127.0.0.1"}, False),
        ({"Forwarded": "for=127.0.0.1"}, False),
        ({"Host": "rebound.example"}, False),  # a page that its owner points at this machine
        ({"Host": "localhost:8008"}, True),
        ({"X-Forwarded-For": "198.51.100.7", "Authorization": f"Bearer {TOKEN}"}, True),
        ({"Authorization": "Bearer guessed"}, False),
        ({"X-Forwarded-For": "198.51.100.7", "Authorization": f"Basic {TOKEN}"}, False),
        ({"X-Forwarded-For": "198.51.100.7", "Authorization": "Bearer \u00e9"}, False),
    ],
)
def test_a_worker_shows_its_insides_to_operators_only(headers: dict[str, str], operator: bool) -> None:
    async def told() -> tuple[int, tuple[int, str]]:
        async with worker_health(TOKEN) as url:
            assert await ask(f"{url}/livez", **headers) == (200, "alive\n")
            return (await ask(f"{url}/metrics", **headers))[0], await ask(f"{url}/readyz", **headers)

    measured, (ready, body) = asyncio.run(told())
    assert measured == (200 if operator else 403)
    assert ready == 503
    assert ("postgres" in body) == operator


def test_without_a_token_nobody_from_elsewhere_is_an_operator() -> None:
    async def told() -> int:
        async with worker_health("") as url:
            headers = {"X-Forwarded-For": "198.51.100.7", "Authorization": "Bearer "}
            return (await ask(f"{url}/metrics", **headers))[0]

    assert asyncio.run(told()) == 403


@pytest.mark.parametrize(("soft", "hard", "room"), [(64, 20_000, 4_096), (64, 1_000, 1_000 - FILES_KEPT)])
def test_a_server_makes_room_for_its_connections(soft: int, hard: int, room: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("this machine allows fewer open files")
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from core.infrastructure.open_files import room_for_connections
print(room_for_connections(4_096), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=REPOSITORY,
    )
    assert found.stdout.split() == [str(room), str(room + FILES_KEPT)]
