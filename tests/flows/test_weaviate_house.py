"""A house whose similar records are in Weaviate: found through the front door, and missing alone when it is away."""

import signal
import subprocess
import uuid
from collections.abc import Iterator

import httpx
import msgspec
import pytest

from core.model.records import RecordKind
from core.settings import WeaviateSettings
from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import FrontDoor
from tests.record_keepers import body_of
from tests.weaviate_servers import double_process


@pytest.fixture(scope="module")
def double() -> Iterator[tuple[WeaviateSettings, subprocess.Popen[bytes]]]:
    with double_process(api_key="k" * 20) as served:
        yield served


@pytest.fixture(scope="module")
def door(
    house: House,
    double: tuple[WeaviateSettings, subprocess.Popen[bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("weaviate"), house, redis_database=9)
    door.settings = msgspec.structs.replace(door.settings, weaviate=double[0])
    weaviate = door.settings.weaviate
    door.worker.environment |= {
        "TICKGATE_WEAVIATE_HOST": weaviate.host,
        "TICKGATE_WEAVIATE_PORT": str(weaviate.port),
        "TICKGATE_WEAVIATE_GRPC_PORT": str(weaviate.grpc_port),
        "TICKGATE_WEAVIATE_API_KEY": weaviate.api_key.reveal(),
        "TICKGATE_WEAVIATE_QUERY_TIMEOUT_S": "1",
    }
    with gateways.running(door, []) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        yield http


def post(http: httpx.Client, kind: RecordKind, **changes: object) -> httpx.Response:
    body = {**msgspec.to_builtins(body_of(kind)), **changes}
    return http.post(f"/v1/{kind}", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})


def test_incidents_live_in_weaviate_and_are_found_there(http: httpx.Client) -> None:
    for name, message in (("lease", "the lease ran out"), ("reset", "connection reset at batch 4")):
        assert post(http, RecordKind.INCIDENTS, id=name, message=message).status_code == 201
    made = http.get("/v1/incidents/reset")
    changed = http.put(
        "/v1/incidents/reset",
        json={**msgspec.to_builtins(body_of(RecordKind.INCIDENTS)), "message": "connection reset at batch 5"},
        headers={"If-Match": made.headers["etag"]},
    )
    assert changed.status_code == 200, changed.text
    found = http.post("/v1/incidents/search", json={"text": "reset", "like": "lease", "weight": 0.2}).json()
    assert [item["id"] for item in found["items"]] == ["reset"]
    assert found["items"][0]["message"] == "connection reset at batch 5"
    page = http.get("/v1/incidents").json()
    assert [item["id"] for item in page["items"]] == ["lease", "reset"]


def test_without_weaviate_only_what_is_in_it_is_missing_and_it_heals_by_itself(
    door: FrontDoor, http: httpx.Client, double: tuple[WeaviateSettings, subprocess.Popen[bytes]]
) -> None:
    assert post(http, RecordKind.INCIDENTS, id="kept").status_code == 201
    process = double[1]
    process.send_signal(signal.SIGSTOP)
    try:
        for answer in (
            http.get("/v1/incidents/kept"),
            http.post("/v1/incidents/search", json={"text": "x"}),
            post(http, RecordKind.MARKET_WINDOWS),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "SIMILARITY_UNAVAILABLE")
        assert post(http, RecordKind.ACCOUNTS, id="elsewhere").status_code == 201
        assert http.get("/v1/symbols").status_code == 200
    finally:
        process.send_signal(signal.SIGCONT)
    wait_for(lambda: http.get("/v1/incidents/kept").status_code == 200, "Weaviate answering again")
