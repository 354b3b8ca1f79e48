"""A bridge process on the session's engines, and a small independent client that speaks its wire."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey
from websockets.asyncio.client import ClientConnection, connect

from core.infrastructure.config_manager import write_settings_file
from core.infrastructure.provisioning import NewSource, provision
from core.messages import wire
from core.messages.wire import Batch, FrameType, Hello, Nack, Resume
from core.model.ticks import TICK_DTYPE, SymbolRun
from core.settings import Secret, Settings
from tests.engines import free_port, wait_for
from tests.order_keys import signing

TOKEN = "connector-token"
SOURCE = "demo"
TENANT = "demo"
ANSWER_TIMEOUT_S = 20.0
DAY_MS = 86_400_000


@dataclass
class Bridge:
    """One `python -m bridge` with settings of its own."""

    port: int
    settings: Settings
    environment: dict[str, str]
    log: Path
    signing_keys: KeySet
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridge"],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[1],
            )

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the bridge ended:\n{self.log.read_text()[-3000:]}")
            return http_status(self.port, "/readyz") == 200

        wait_for(ready, "the bridge being ready")

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.send(number)
        return self.process.wait(timeout=20)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def token(self, **changes: Any) -> str:
        """An access token as the gateway would make it."""
        import time

        now_s = int(time.time())
        claims = {
            "iss": "tickgate",
            "aud": "tickgate-api",
            "sub": "tester",
            "client_id": "tester",
            "tenant": TENANT,
            "scope": "market:read",
            "iat": now_s,
            "exp": now_s + 300,
            "jti": secrets.token_hex(8),
            **changes,
        }
        header = {"alg": "Ed25519", "typ": "at+jwt", "kid": self.signing_keys.keys[0].kid}
        return jwt.encode(header, claims, self.signing_keys, algorithms=["Ed25519"])


def http_status(port: int, path: str, **headers: str) -> int:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def build_bridge(settings: Settings, directory: Path, **options: Any) -> Bridge:
    """Lay out a bridge on `settings`' stores, with one source provisioned; nothing is started."""
    keys = KeySet([OKPKey.generate_key("Ed25519", auto_kid=True)])
    jwks = directory / "jwks.json"
    write_settings_file(jwks, dict(keys.as_dict(private=False)))
    port = free_port()
    tree = {
        "postgres": {
            "port": settings.postgres.port,
            "password": settings.postgres.password.reveal(),
            "database": settings.postgres.database,
        },
        "clickhouse": {
            "port": settings.clickhouse.port,
            "password": settings.clickhouse.password.reveal(),
            "database": settings.clickhouse.database,
        },
        "redis": {"port": settings.redis.port, "password": settings.redis.password.reveal()},
        "auth": {"jwks_file": str(jwks)},
        "bridge": {"port": port, **options},
    }
    settings_file = directory / "bridge.json"
    write_settings_file(settings_file, tree)
    asyncio.run(provision(settings, [], [NewSource(name=SOURCE, token=Secret(TOKEN), tenant=TENANT)]))
    environment = {**os.environ, "TICKGATE_SETTINGS_FILE": str(settings_file)}
    return Bridge(port, signing(settings, directory), environment, directory / "bridge.log", keys)


@pytest.fixture
def bridge(settings: Settings, tmp_path: Path) -> Iterator[Bridge]:
    """A running bridge on this test's own databases."""
    bridge = build_bridge(settings, tmp_path, hello_timeout_s=1.0, window_rows=200_000, window_frames=64)
    bridge.start()
    try:
        bridge.wait_ready()
        yield bridge
    finally:
        if bridge.process is not None and bridge.process.poll() is None:
            bridge.stop(signal.SIGKILL)


@dataclass
class Wire:
    """The client end, one frame at a time."""

    socket: ClientConnection

    async def hello(self, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "versions": [1],
            "source": SOURCE,
            "install": "install-1",
            "token": TOKEN,
            "first_seq": 1,
            "next_seq": 1_000_000,
            **changes,
        }
        await self.socket.send(wire.encode_json(FrameType.HELLO, Hello(**fields)))

    async def resume(self, **changes: Any) -> Resume:
        await self.hello(**changes)
        return wire.decode_json(await self.frame(FrameType.RESUME), Resume)

    async def batch(self, first_seq: int, rows: np.ndarray, symbol: str = "EURUSD", **changes: Any) -> None:
        runs = (SymbolRun(symbol=symbol, count=len(rows)),)
        batch = Batch(first_seq=first_seq, rows=rows, runs=runs, **changes)
        await self.socket.send(wire.encode_batch(batch))

    async def frame(self, kind: FrameType) -> bytes:
        """Return the next frame, which must be of `kind`."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            frame = await self.socket.recv()
        assert isinstance(frame, bytes)
        assert wire.frame_type(frame) is kind, frame[:300]
        return frame

    async def acknowledged(self, seq: int) -> None:
        """Wait until everything up to `seq` is durable."""
        while wire.decode_ack(await self.frame(FrameType.ACK)) < seq:
            pass

    async def nack(self) -> Nack:
        return wire.decode_json(await self.frame(FrameType.NACK), Nack)

    async def close_code(self) -> int:
        """Wait until the bridge has closed, and return its code."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code


@contextlib.asynccontextmanager
async def dial(bridge: Bridge) -> AsyncIterator[Wire]:
    async with connect(bridge.url + wire.PATH, max_size=None, compression=None) as socket:
        yield Wire(socket)


def make_rows(count: int, first: int = 0) -> np.ndarray:
    """Rows of a quiet market, three a millisecond; row i is the same whatever `first` it is made from."""
    index = np.arange(first, first + count)
    rows = np.zeros(count, dtype=TICK_DTYPE)
    rows["time_msc"] = 1_714_557_600_000 + index // 3
    rows["time"] = rows["time_msc"] // 1_000
    rows["bid"] = np.round(1.07 + (index % 1_000) * 1e-5, 5)
    rows["ask"] = np.round(rows["bid"] + 1e-4, 5)
    rows["flags"] = 6
    return rows


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
