"""The gateway's limits through its front door: two processes, one limit, and a Redis that may stand still."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace as with_changes

import httpx
import msgspec
import pytest

from core.settings import LimitsSettings
from tests.engines import House, wait_for
from tests.faults.proxy import Proxy
from tests.gateways import NO_LIMITS, FrontDoor, build, gateway_alone

LIMITS = msgspec.structs.replace(NO_LIMITS, read="10/hour", failed="5/hour", answer_ms_max=1_000)
"""A busy machine may be slow to count, and then each process would count for itself."""
LIVE_S_MAX = 0.25
"""The limiter's own share is none; the rest is for a busy machine."""


@dataclass
class Stoppable:
    door: FrontDoor
    redis: Proxy
    tokens: dict[str, str]

    def read(self, path: str, who: str = "demo") -> httpx.Response:
        with self.door.client() as http:
            return http.get(path, headers={"Authorization": f"Bearer {self.tokens[who]}"})


@pytest.fixture(scope="module")
def limited(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stoppable]:
    proxy = Proxy(house.settings.redis.port)
    settings = msgspec.structs.replace(
        house.settings, redis=msgspec.structs.replace(house.settings.redis, port=proxy.port)
    )
    door = build(
        tmp_path_factory.mktemp("limited"),
        with_changes(house, settings=settings),
        redis_database=11,
        limits=LIMITS,
        processes=2,
    )
    with gateway_alone(door):
        yield Stoppable(door, proxy, {who: door.token(who) for who in ("demo", "rival")})
    proxy.close()


def test_one_limit_holds_for_all_processes_and_all_paths_of_a_class(limited: Stoppable) -> None:
    answers = [limited.read(f"/v1/jobs/{number}") for number in range(10)]
    assert {answer.status_code for answer in answers} == {404}
    assert answers[0].headers["RateLimit-Limit"] == "10"
    assert answers[0].headers["RateLimit-Remaining"] == "9"
    assert answers[0].headers["RateLimit-Policy"] == "10;w=3600"
    refused = limited.read("/v1/jobs/11")
    assert refused.status_code == 429
    assert refused.json()["code"] == "RATE_LIMITED"
    assert int(refused.headers["Retry-After"]) >= 1
    assert int(refused.headers["RateLimit-Reset"]) >= 1
    assert refused.headers["RateLimit-Remaining"] == "0"
    assert limited.read("/v1/jobs/1", "rival").status_code == 404


def test_refused_credentials_are_limited_and_a_valid_one_still_comes_in(limited: Stoppable) -> None:
    with limited.door.client() as http:
        statuses = [
            http.get("/v1/jobs/1", headers={"Authorization": "Bearer x"}).status_code for _ in range(6)
        ]
    assert statuses == [401] * 5 + [429]
    assert limited.read("/v1/jobs/1", "rival").status_code == 404


def test_a_frozen_redis_freezes_neither_health_nor_limits_nor_what_needs_no_queue(limited: Stoppable) -> None:
    limited.redis.weather.frozen = True
    try:
        with limited.door.client() as http:
            worst_s = 0.0
            statuses = []
            for _ in range(40):
                began_s = time.monotonic()
                assert http.get("/livez").status_code == 200
                worst_s = max(worst_s, time.monotonic() - began_s)
                statuses.append(limited.read("/v1/keys", "rival").status_code)
    finally:
        limited.redis.weather.frozen = False
    assert worst_s < LIVE_S_MAX
    # Each of the two processes counts for itself.
    assert 1 <= statuses.count(200) <= 20
    assert set(statuses) == {200, 429}


def test_a_limit_that_is_none_stops_the_gateway_with_a_sentence(house: House, limited: Stoppable) -> None:
    root = limited.door.root.parent / "misconfigured"
    door = build(root, house, limits=LimitsSettings(read="often"))
    door.gateway.start()
    assert door.gateway.process is not None
    wait_for(lambda: door.gateway.process is not None and door.gateway.process.poll() == 1, "its end")
    assert "limits.read" in door.gateway.log.read_text()
