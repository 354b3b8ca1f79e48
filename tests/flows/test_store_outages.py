"""One store stops: exactly what depends on it fails, /health says which, and all of it heals by itself.

The table is that of docs/databases.md.
"""

import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pytest

from core.model.records import RecordKind
from tests import gateways
from tests.engines import House, running_house, wait_for
from tests.gateways import DAY_MS, FrontDoor, tick
from tests.record_keepers import body_of

pytestmark = pytest.mark.timeout(240)

ROUTES = {
    "ticks": "/v1/ticks?symbol=EURUSD",
    "bars": "/v1/bars?symbol=EURUSD",
    "symbols": "/v1/symbols",
    "annotations": "/v1/annotations",
    "accounts": "/v1/accounts",
    "incidents": "/v1/incidents",
    "services": "/v1/services",
    "watchlists": "/v1/watchlists",
    "keys": "/v1/keys",
    "jwks": "/.well-known/jwks.json",
}
MARKET = {"ticks", "bars", "symbols"}
OF_WORKERS = {*MARKET, "annotations", "accounts", "incidents", "services", "watchlists"}
OUTAGES = {
    # engine -> the stores that /health names as failing, its status, and the routes that fail
    "clickhouse": ({"clickhouse"}, "warn", MARKET | {"annotations"}),
    "postgres": (
        {"postgres", "weaviate", "arango"},
        "fail",
        MARKET | {"accounts", "incidents", "services", "keys"},
    ),
    "valkey": ({"redis"}, "fail", OF_WORKERS),
}


@pytest.fixture(scope="module")
def own_house() -> Iterator[House]:
    root = Path(tempfile.mkdtemp(prefix="tickgate-outages-"))
    root.chmod(0o711)
    try:
        with running_house(root) as house:
            yield house
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def door(own_house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    rows = [tick(seq, DAY_MS + seq, 1.1, 1.2) for seq in range(1, 4)]
    with gateways.running(gateways.build(tmp_path_factory.mktemp("outages"), own_house), rows) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        http.timeout = httpx.Timeout(30)
        for kind in (RecordKind.ACCOUNTS, RecordKind.WATCHLISTS):
            made = http.post(
                f"/v1/{kind}",
                json=msgspec.to_builtins(body_of(kind)),
                headers={"Idempotency-Key": str(uuid.uuid4())},
            )
            assert made.status_code == 201, made.text
        yield http


def failing_routes(http: httpx.Client) -> set[str]:
    return {name for name, path in ROUTES.items() if http.get(path).status_code >= 500}


def told(http: httpx.Client) -> tuple[int, str, set[str]]:
    """Return what /health says: its HTTP status, its own, and the stores that fail for anybody."""
    answer = http.get("/health")
    checks = answer.json()["checks"]
    failing = {
        name.partition(":")[0]
        for name, found in checks.items()
        if name.endswith(":responseTime") and any(check["status"] == "fail" for check in found)
    }
    return answer.status_code, answer.json()["status"], failing


@pytest.mark.parametrize("engine", OUTAGES)
def test_exactly_what_depends_on_a_store_fails_with_it_and_heals(
    own_house: House, http: httpx.Client, engine: str
) -> None:
    stores, status, routes = OUTAGES[engine]
    wait_for(lambda: told(http)[1:] == ("pass", set()), "all being well")
    assert failing_routes(http) == set()
    own_house.engines[engine].stop(signal.SIGKILL)
    try:
        # What the worker says is a second old at most, and the gateway may be quicker with its own.
        wait_for(lambda: told(http)[1:] == (status, stores), f"/health saying {status} of {sorted(stores)}")
        assert told(http)[0] == (503 if status == "fail" else 200)
        assert failing_routes(http) == routes
    finally:
        own_house.engines[engine].start()
        own_house.engines[engine].wait()
    wait_for(lambda: not failing_routes(http), "every route answering again")
    wait_for(lambda: told(http)[1:] == ("pass", set()), "/health saying that all is well again")


def test_who_may_not_read_it_is_told_the_status_alone(door: FrontDoor) -> None:
    with door.client() as nobody:
        away = {"X-Forwarded-For": "203.0.113.9"}
        assert nobody.get("/health", headers=away).json() == {"status": "pass"}
        wrong = {**away, "Authorization": "Bearer x"}
        assert nobody.get("/health", headers=wrong).json() == {"status": "pass"}
        scoped = {**away, "Authorization": f"Bearer {door.token('demo')}"}
        assert set(nobody.get("/health", headers=scoped).json()) == {
            "status",
            "version",
            "releaseId",
            "checks",
        }
        unscoped = {**away, "Authorization": f"Bearer {door.token('scopeless')}"}
        assert nobody.get("/health", headers=unscoped).json() == {"status": "pass"}


def test_what_stands_in_is_named_and_every_check_has_its_version(http: httpx.Client) -> None:
    answer = http.get("/health")
    assert answer.headers["content-type"] == "application/health+json"
    checks = answer.json()["checks"]
    by_worker = {
        name.partition(":")[0]: check
        for name, found in checks.items()
        for check in found
        if check["componentId"] == "worker-database" and name.endswith(":responseTime")
    }
    assert set(by_worker) == {"postgres", "clickhouse", "redis", "weaviate", "arango"}
    assert by_worker["weaviate"]["standIn"] == "pgvector in PostgreSQL stands in"
    assert by_worker["arango"]["standIn"] == "recursive SQL in PostgreSQL stands in"
    assert all(by_worker[name]["version"] for name in ("postgres", "clickhouse", "redis"))


def test_a_worker_says_how_its_stores_stand(door: FrontDoor) -> None:
    port = door.settings.worker.health_port
    told_by_worker = httpx.get(f"http://127.0.0.1:{port}/health")
    assert told_by_worker.json()["status"] == "pass"
    assert len(told_by_worker.json()["stores"]) == 5
    from_afar = httpx.get(f"http://127.0.0.1:{port}/health", headers={"X-Forwarded-For": "203.0.113.9"})
    assert from_afar.json() == {"status": "pass"}


def test_whoever_asks_while_the_worker_is_being_asked_is_told_what_it_says(http: httpx.Client) -> None:
    def checks(_number: int) -> set[str]:
        return set(http.get("/health").json()["checks"])

    with ThreadPoolExecutor(8) as askers:
        assert all("arango:responseTime" in found for found in askers.map(checks, range(64)))


def test_a_worker_that_is_away_is_a_warning(door: FrontDoor, http: httpx.Client) -> None:
    door.worker.stop()
    try:
        wait_for(lambda: http.get("/health").json()["status"] == "warn", "/health warning")
        (worker,) = http.get("/health").json()["checks"]["workers:database"]
        assert worker["status"] == "warn"
        assert worker["output"]
    finally:
        door.worker.start()
    wait_for(lambda: http.get("/health").json()["status"] == "pass", "/health saying that all is well again")
