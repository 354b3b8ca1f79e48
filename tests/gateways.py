"""A gateway and a database worker as processes of their own, on the session's engines, with two tenants' ticks."""

import asyncio
import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from joserfc.jwk import OKPKey

from core.adapters.clickhouse.client import connect
from core.infrastructure.config_manager import write_settings_file
from core.infrastructure.provisioning import NewClient, NewSource, provision
from core.model.principals import Scope
from core.settings import AuthSettings, GatewaySettings, LimitsSettings, Secret, Settings, WorkerSettings
from tests.engines import PASSWORD, House, bring_forward, free_port, wait_for

SECRET = "0123456789abcdef0123456789abcdef"
SCOPES = tuple(Scope)
DAY_MS = 20_000 * 86_400_000
"""A day long enough ago not to move."""

CREDENTIAL = re.compile(
    # The clients' secret, also inside HTTP Basic; the stores' password; JSON Web Tokens; our keys and refresh tokens.
    rf"{SECRET}|{base64.b64encode(SECRET.encode()).decode()[4:40]}|{PASSWORD}"
    r"|eyJ[\w-]{10,}\.|\btg[a-z]{1,2}_[\w-]{16,}|[Bb]asic [\w+/=]{8,}|[Bb]earer [\w.-]{16,}"
)

TICK_COLUMNS = (
    "source",
    "epoch",
    "seq",
    "symbol",
    "time",
    "time_msc",
    "bid",
    "ask",
    "last",
    "volume",
    "volume_real",
    "flags",
    "quarantine",
    "backfill",
    "utc_offset_s",
    "captured_at_ms",
)


def tick(seq: int, time_msc: int, bid: float, ask: float, **changes: Any) -> dict[str, Any]:
    """Return one row of the tick table."""
    row: dict[str, Any] = {
        "source": "demo",
        "epoch": 1,
        "seq": seq,
        "symbol": "EURUSD",
        "time": time_msc // 1_000,
        "time_msc": time_msc,
        "bid": bid,
        "ask": ask,
        "last": 0.0,
        "volume": 0,
        "volume_real": 0.0,
        "flags": 6,
        "quarantine": "OK",
        "backfill": 0,
        "utc_offset_s": 7_200,
        "captured_at_ms": time_msc + 5,
    }
    return {**row, **changes}


async def insert_ticks(settings: Settings, rows: list[dict[str, Any]]) -> None:
    client = await connect(settings.clickhouse, settings.clickhouse.database)
    try:
        await client.insert(
            "ticks", [[row[name] for name in TICK_COLUMNS] for row in rows], column_names=list(TICK_COLUMNS)
        )
    finally:
        await client.close()


@dataclass
class Process:
    """One of our processes."""

    arguments: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[1],
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def check(self) -> bool:
        """Fail when it has ended; otherwise say nothing, so that `check() or fact` waits for the fact."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{self.arguments} ended:\n{self.log.read_text()[-3000:]}")
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@dataclass
class FrontDoor:
    """settings: how the test itself reaches the stores; gateway and worker have them in a file."""

    root: Path
    settings: Settings
    gateway: Process
    worker: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.gateway.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)

    def token(self, client_id: str = "demo", secret: str = SECRET) -> str:
        with self.client() as http:
            answer = http.post(
                "/oauth/token", data={"grant_type": "client_credentials"}, auth=(client_id, secret)
            )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def signed_in(self, client_id: str = "demo") -> httpx.Client:
        http = self.client()
        http.headers["Authorization"] = f"Bearer {self.token(client_id)}"
        return http

    def ready(self) -> bool:
        self.gateway.check()
        self.worker.check()
        return _status(f"{self.url}/readyz") == 200

    def alive(self) -> bool:
        self.gateway.check()
        return _status(f"{self.url}/livez") == 200


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.HTTPError:
        return 0


NO_LIMITS = LimitsSettings(
    **dict.fromkeys(("public", "token", "read", "write", "export", "failed"), "1000000/minute"),  # type: ignore[arg-type]
)
"""For tests of something else, which ask much in little time."""


def build(
    root: Path, house: House, redis_database: int = 0, *, limits: LimitsSettings = NO_LIMITS, **gateway: Any
) -> FrontDoor:
    """Write keys and settings of a gateway and a worker on `house`, with databases of their own."""
    root.mkdir(parents=True, exist_ok=True)
    name = f"t_{secrets.token_hex(6)}"
    key = OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True)
    write_settings_file(root / "key.json", {"keys": [key.as_dict(private=True)]})
    write_settings_file(root / "jwks.json", {"keys": [key.as_dict(private=False)]})
    replace = msgspec.structs.replace
    settings = replace(
        house.settings,
        log_level="debug",
        postgres=replace(house.settings.postgres, database=name),
        clickhouse=replace(house.settings.clickhouse, database=name),
        redis=replace(house.settings.redis, database=redis_database),
        auth=AuthSettings(key_file=str(root / "key.json"), jwks_file=str(root / "jwks.json")),
        gateway=GatewaySettings(port=free_port(), **gateway),
        limits=limits,
        worker=WorkerSettings(health_port=free_port()),
    )
    tree = json.loads(
        msgspec.json.encode(
            settings, enc_hook=lambda value: value.reveal() if isinstance(value, Secret) else None
        )
    )
    write_settings_file(root / "settings.json", tree)
    environment = {**os.environ, "TICKGATE_SETTINGS_FILE": str(root / "settings.json")}
    return FrontDoor(
        root,
        settings,
        Process(["gateway"], environment, root / "gateway.log"),
        Process(["workers", "database"], environment, root / "worker.log"),
    )


async def prepare(settings: Settings, rows: list[dict[str, Any]]) -> None:
    """Migrate, and provision two tenants: `demo` with the sources demo and demo2, `rival` with its own."""
    await bring_forward(settings)
    clients = [
        NewClient(client_id="demo", secret=Secret(SECRET), tenant="demo", scopes=SCOPES),
        NewClient(client_id="rival", secret=Secret(SECRET), tenant="rival", scopes=SCOPES),
        NewClient(client_id="scopeless", secret=Secret(SECRET), tenant="demo", scopes=()),
    ]
    sources = [
        NewSource(name="demo", token=Secret("t"), tenant="demo"),
        NewSource(name="demo2", token=Secret("t"), tenant="demo"),
        NewSource(name="rival", token=Secret("t"), tenant="rival"),
    ]
    await provision(settings, clients, sources)
    if rows:
        await insert_ticks(settings, rows)


@contextmanager
def running(door: FrontDoor, rows: list[dict[str, Any]]) -> Iterator[FrontDoor]:
    asyncio.run(prepare(door.settings, rows))
    door.gateway.start()
    door.worker.start()
    try:
        wait_for(door.ready, "gateway and worker being ready")
        yield door
    finally:
        door.gateway.stop()
        door.worker.stop()
    assert_no_secret_in(door)


@contextmanager
def gateway_alone(door: FrontDoor, up: Callable[[], bool] | None = None) -> Iterator[FrontDoor]:
    """Run the gateway without a worker, for what never reaches one. up: says that it is, where HTTP cannot."""
    asyncio.run(prepare(door.settings, []))
    door.gateway.start()
    try:
        wait_for(up or door.alive, "the gateway being alive")
        yield door
    finally:
        door.gateway.stop()
    assert_no_secret_in(door)


def assert_no_secret_in(door: FrontDoor) -> None:
    """Fail when anything of this run's logs is or looks like a credential, whatever the tests sent."""
    for log in (door.gateway.log, door.worker.log):
        text = log.read_text() if log.exists() else ""
        found = CREDENTIAL.search(text)
        assert found is None, f"{log.name}: {text[max(0, found.start() - 300) : found.end() + 20]}"


def basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()
