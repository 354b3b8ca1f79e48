"""What a pool is worth: the same small query through our pools, and with a connection made for each and closed again.

Run with `python -m tests.benchmarks.pooling`. PostgreSQL with TCP and SCRAM, and with TLS where a server with TLS is
installed (the embedded one is built without); Valkey with a password; the ClickHouse engine over HTTP.
"""

import asyncio
import datetime
import shutil
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import asyncpg
import redis.asyncio as redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.adapters.clickhouse.client import connect as connect_clickhouse
from core.infrastructure.central_hub import open_hub
from core.settings import Settings
from tests.engines import PASSWORD, bring_forward, free_port, running_house

ROUNDS = 3
POOLED = 2_000
ALONE = 100
AT_ONCE = 8
SERVER = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"

Ask = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Measured:
    """latency_ms: p50 of one after the other; rate: queries a second with AT_ONCE at a time."""

    latency_ms: float
    p99_ms: float
    rate: float


async def measure(ask: Ask, count: int) -> Measured:
    for _ in range(5):
        await ask()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await ask()
        times.append((time.perf_counter() - began) * 1_000)

    async def several() -> None:
        for _ in range(count // AT_ONCE):
            await ask()

    began = time.perf_counter()
    await asyncio.gather(*(several() for _ in range(AT_ONCE)))
    rate = count // AT_ONCE * AT_ONCE / (time.perf_counter() - began)
    return Measured(statistics.median(times), statistics.quantiles(times, n=100)[98], rate)


async def compare(name: str, pooled: Ask, alone: Ask) -> None:
    rounds = [(await measure(pooled, POOLED), await measure(alone, ALONE)) for _ in range(ROUNDS)]

    def middle(which: int, what: str) -> float:
        return statistics.median(getattr(one[which], what) for one in rounds)

    ratios = [
        f"{middle(1, 'latency_ms') / middle(0, 'latency_ms'):5.0f} x",
        f"{middle(1, 'p99_ms') / middle(0, 'p99_ms'):5.0f} x",
        f"{middle(0, 'rate') / middle(1, 'rate'):5.0f} x",
    ]
    print(
        f"| {name:28} | {middle(0, 'latency_ms'):6.2f} ms | {middle(1, 'latency_ms'):6.2f} ms |"
        f" {middle(0, 'rate'):7,.0f} | {middle(1, 'rate'):6,.0f} | {' | '.join(ratios)} |",
        flush=True,
    )


async def embedded(settings: Settings) -> None:
    postgres, valkey = settings.postgres, settings.redis
    where = {"host": postgres.host, "port": postgres.port, "database": postgres.database}
    where |= {"user": postgres.user, "password": PASSWORD}
    async with open_hub(settings, {"postgres", "redis", "clickhouse"}) as hub:

        async def pooled_postgres() -> object:
            async with hub["postgres"].acquire() as connection:
                return await connection.fetchval("select 1")

        async def alone_postgres() -> object:
            connection = await asyncpg.connect(**where)
            try:
                return await connection.fetchval("select 1")
            finally:
                await connection.close()

        await compare("PostgreSQL, TCP + SCRAM", pooled_postgres, alone_postgres)

        async def alone_valkey() -> object:
            async with redis.Redis(host=valkey.host, port=valkey.port, password=PASSWORD) as client:
                return await client.ping()

        await compare("Valkey, password", hub["redis"].ping, alone_valkey)

        async def alone_clickhouse() -> object:
            client = await connect_clickhouse(settings.clickhouse, settings.clickhouse.database)
            try:
                return await client.command("select 1")
            finally:
                await client.close()

        await compare(
            "ClickHouse engine, HTTP", lambda: hub["clickhouse"].rows("select 1", {}), alone_clickhouse
        )


@contextmanager
def server_with_tls(root: Path) -> Iterator[tuple[int, Path]]:
    """Run the installed PostgreSQL with a certificate of our own; yields its port and the certificate."""
    certificate, key = root / "server.crt", root / "server.key"
    write_certificate(certificate, key)
    data, port = root / "data", free_port()
    password = root / "password"
    password.write_text(PASSWORD)
    for path in (root, password, certificate, key):
        shutil.chown(path, USER)
    key.chmod(0o600)
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    subprocess.run(
        [
            *as_user,
            SERVER / "initdb",
            "-D",
            data,
            "-U",
            "tickgate",
            "-A",
            "scram-sha-256",
            f"--pwfile={password}",
        ],
        check=True,
        capture_output=True,
    )
    options = ["-c", "ssl=on", "-c", f"ssl_cert_file={certificate}", "-c", f"ssl_key_file={key}"]
    server = subprocess.Popen(
        [*as_user, SERVER / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "", *options],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port, certificate
    finally:
        server.terminate()
        server.wait()


def write_certificate(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


async def with_tls(port: int, certificate: Path) -> None:

    context = ssl.create_default_context(cafile=str(certificate))
    where = {
        "host": "127.0.0.1",
        "port": port,
        "user": "tickgate",
        "password": PASSWORD,
        "database": "postgres",
    }

    @asynccontextmanager
    async def connection() -> AsyncIterator[asyncpg.Connection]:
        one = await asyncpg.connect(**where, ssl=context)
        try:
            yield one
        finally:
            await one.close()

    async def alone() -> object:
        async with connection() as one:
            return await one.fetchval("select 1")

    await until_up(alone)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            asyncpg.create_pool(**where, ssl=context, min_size=1, max_size=8)
        )

        async def pooled() -> object:
            async with pool.acquire(timeout=5) as one:
                return await one.fetchval("select 1")

        await compare("PostgreSQL, TLS + SCRAM", pooled, alone)


async def until_up(ask: Ask) -> None:
    for _ in range(200):
        try:
            await ask()
        except (OSError, asyncpg.CannotConnectNowError):
            await asyncio.sleep(0.05)
        else:
            return
    raise SystemExit("error: the server with TLS did not come up")


def main() -> None:
    print("| | pooled p50 | alone p50 | pooled/s | alone/s | p50 | p99 | throughput |")
    print("|---|---|---|---|---|---|---|---|")
    root = Path(tempfile.mkdtemp(prefix="tickgate-bench-"))
    root.chmod(0o711)
    try:
        with running_house(root / "house") as house:
            asyncio.run(bring_forward(house.settings))
            asyncio.run(embedded(house.settings))
        if (SERVER / "postgres").exists():
            (root / "tls").mkdir()
            with server_with_tls(root / "tls") as (port, certificate):
                asyncio.run(with_tls(port, certificate))
        else:
            print("no PostgreSQL with TLS is installed: its row is left out")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
