"""The gateway as a hostile caller meets it: what every answer carries, and who is believed about what."""

import http.client
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from gateway.catalog import ENDPOINTS
from gateway.routing import Endpoint
from tests import gateways
from tests.engines import House, wait_for
from tests.gateways import DAY_MS, FrontDoor, tick

PAGE = "https://app.example.com"
PROXY = "127.0.0.2"
"""An address of this machine that the gateway is told to trust."""
CALLER = "198.51.100.7"
HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "server": "tickgate",
}
OWN = {"content-security-policy": {"/docs"}}
"""Routes that may say something else."""
HEADER_PATIENCE_S = 10.0
TICKS = "/v1/ticks?symbol=EURUSD"


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    built = gateways.build(
        tmp_path_factory.mktemp("hardening"),
        house,
        redis_database=7,
        cors_origins=[PAGE],
        trusted_proxies=[PROXY],
        allowed_hosts=["api.example.com"],
    )
    with gateways.running(built, [tick(seq, DAY_MS + seq, 1.1, 1.2) for seq in range(1, 4)]) as door:
        yield door


@pytest.fixture(scope="module", autouse=True)
def crawler(door: FrontDoor) -> Iterator[Future[tuple[bytes, float]]]:
    """A connection that never finishes its headers, opened first, so that nobody has to wait for it.

    What it was answered until it was closed, and how long that took, in seconds.
    """
    with (
        socket.create_connection(("127.0.0.1", door.settings.gateway.port), timeout=60) as raw,
        ThreadPoolExecutor(1) as watching,
    ):
        raw.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ")
        opened_s = time.monotonic()
        yield watching.submit(lambda: (raw.recv(65_536), time.monotonic() - opened_s))


@pytest.fixture(scope="module")
def known(door: FrontDoor) -> Iterator[httpx.Client]:
    """One caller with a token, asked for once: tokens are limited."""
    with door.signed_in() as http:
        yield http


def from_proxy(door: FrontDoor) -> httpx.Client:
    return httpx.Client(base_url=door.url, transport=httpx.HTTPTransport(local_address=PROXY), timeout=30)


def assert_hardened(answer: httpx.Response) -> None:
    what = f"{answer.request.method} {answer.request.url} {answer.status_code}"
    for name, value in HEADERS.items():
        if answer.request.url.path not in OWN.get(name, ()):
            assert answer.headers.get_list(name) == [value], f"{what}: {name}"
    assert "cache-control" in answer.headers, what
    assert answer.headers["x-request-id"] in answer.headers["traceresponse"], what
    assert "strict-transport-security" not in answer.headers, what
    assert answer.headers["vary"].split(", ").count("Origin") == 1, what


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_every_answer_of_every_route_carries_the_headers(
    door: FrontDoor, known: httpx.Client, endpoint: Endpoint
) -> None:
    method, path = endpoint.method, re.sub(r"{\w+}", "nothing", endpoint.path)
    with door.client() as stranger:
        for caller in (stranger, known):
            for one in (method, "TRACE", "OPTIONS"):
                # Only its head: some answers have no end.
                with caller.stream(one, path) as answer:
                    assert answer.status_code < 500
                    assert_hardened(answer)
        assert_hardened(known.request(method, path, headers={"Host": "evil.example"}))
        assert_hardened(known.request(method, path, content=b"x" * 1_000_000))


def test_refusals_and_preflights_carry_the_headers_too(door: FrontDoor, known: httpx.Client) -> None:
    with door.client() as http:
        for path, status in (("/nowhere", 404), ("/%00", 404), ("/" + "a" * 20_000, 414)):
            answer = http.get(path)
            assert answer.status_code == status
            assert_hardened(answer)
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
        assert_hardened(http.options("/v1/ticks", headers=asked))
    answer = known.get(TICKS, headers={"Accept": "text/csv"})
    assert answer.status_code == 200
    assert_hardened(answer)


def test_transport_security_is_announced_over_tls_only(door: FrontDoor) -> None:
    secure = {"X-Forwarded-For": CALLER, "X-Forwarded-Proto": "https"}
    with door.client() as direct, from_proxy(door) as proxied:
        assert "strict-transport-security" not in direct.get("/livez", headers=secure).headers
        assert "strict-transport-security" not in proxied.get("/livez").headers
        announced = proxied.get("/livez", headers=secure).headers["strict-transport-security"]
        assert announced == "max-age=31536000; includeSubDomains"


# -- cross-origin ---------------------------------------------------------------------------------------


def test_a_listed_page_may_read_answers_and_errors(door: FrontDoor) -> None:
    with door.client() as http:
        for path in ("/", "/nowhere", TICKS):
            answer = http.get(path, headers={"Origin": PAGE})
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "access-control-allow-credentials" not in answer.headers
            exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
            assert {"retry-after", "x-next-cursor", "link", "x-request-id", "traceresponse"} <= set(exposed)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "*",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://evil.example/https://app.example.com",
        "https://sub.app.example.com",
        "HTTPS://APP.EXAMPLE.COM",
    ],
)
def test_any_other_page_may_not(door: FrontDoor, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    with door.client() as http:
        for answer in (
            http.get("/", headers={"Origin": origin}),
            http.options("/v1/ticks", headers=asked),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.headers["vary"] == "Origin"
        assert (answer.status_code, answer.json()["code"]) == (403, "CROSS_ORIGIN_REFUSED")


def test_a_page_that_sends_two_origins_is_none(door: FrontDoor) -> None:
    with door.client() as http:
        answer = http.get("/", headers=[("Origin", PAGE), ("Origin", "https://evil.example")])
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_says_which_methods_and_headers_there_are(door: FrontDoor) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type,idempotency-key",
    }
    with door.client() as http:
        answer = http.options("/oauth/token", headers=asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"].split(", ")
    assert "Authorization" in answer.headers["access-control-allow-headers"].split(", ")
    assert int(answer.headers["access-control-max-age"]) <= 600


@pytest.mark.parametrize(
    "changed",
    [
        {"Access-Control-Request-Method": "TRACE"},
        {"Access-Control-Request-Method": "get"},
        {"Access-Control-Request-Headers": "x-forwarded-for"},
        {"Access-Control-Request-Headers": "authorization, x-evil"},
    ],
)
def test_a_preflight_for_what_nobody_sends_is_refused(door: FrontDoor, changed: dict[str, str]) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "GET", **changed}
    with door.client() as http:
        assert http.options("/v1/ticks", headers=asked).status_code == 403


# -- who is calling -------------------------------------------------------------------------------------


def test_measurements_are_for_operators(door: FrontDoor) -> None:
    with door.client() as http:
        assert http.get("/metrics").status_code == 200
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
            # Somebody's proxy is in between, so this machine is not where the caller is.
            assert http.get("/metrics", headers={name: "127.0.0.1"}).status_code == 403


def test_a_page_in_a_browser_on_this_machine_is_no_operator(door: FrontDoor) -> None:
    with door.client() as http:
        assert http.get("/metrics", headers={"Host": "api.example.com"}).status_code == 403
        assert http.get("/metrics", headers={"Host": "localhost"}).status_code == 200


def test_a_trusted_proxy_does_not_make_its_callers_local(door: FrontDoor) -> None:
    with from_proxy(door) as http:
        assert http.get("/metrics", headers={"X-Forwarded-For": CALLER}).status_code == 403
        assert http.get("/metrics", headers={"X-Forwarded-For": f"127.0.0.1, {CALLER}"}).status_code == 403


def test_only_operators_are_told_what_is_missing(door: FrontDoor) -> None:
    door.worker.stop()
    try:
        with door.client() as operator, from_proxy(door) as stranger:
            wait_for(lambda: operator.get("/readyz").status_code == 503, "the worker being missed", 15)
            assert list(operator.get("/readyz").json()["problems"]) == ["worker"]
            untold = stranger.get("/readyz", headers={"X-Forwarded-For": CALLER})
            assert (untold.status_code, untold.json()) == (503, {"ready": False, "problems": {}})
    finally:
        door.worker.start()
        wait_for(door.ready, "the worker being back", 15)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "api.example.com.", "127.0.0.1.nip.io"]
)
def test_a_name_that_somebody_points_at_us_is_not_answered(door: FrontDoor, host: str) -> None:
    with door.client() as http:
        answer = http.get("/livez", headers={"Host": host})
        expected = 200 if host.rstrip(".") == "api.example.com" else 421
        assert answer.status_code == expected


def test_our_names_and_addresses_are_answered(door: FrontDoor) -> None:
    with door.client() as http:
        for host in ("api.example.com", "API.example.com:8443", "localhost", "127.0.0.1:1", "[::1]:80"):
            assert http.get("/livez", headers={"Host": host}).status_code == 200


# -- odd ways in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "//metrics",
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "/v1/..%2fmetrics",
        "/metrics/",
        "/metrics;x",
        "/metrics%00",
        "/metrics%20",
        "/METRICS",
        "/%c0%af/metrics",
        "/metrics%ff",
        "\\metrics",
        "/v1\\ticks",
        "*",
        "/.//metrics",
    ],
)
def test_a_path_has_one_spelling(door: FrontDoor, target: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.settings.gateway.port, timeout=10)
    try:
        connection.putrequest("GET", target)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status in {400, 404}, answer.status
        assert "location" not in answer.headers
    finally:
        connection.close()


def test_head_answers_the_headers_alone(door: FrontDoor) -> None:
    with door.client() as http:
        answer = http.head("/")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == http.get("/").headers["content-length"]


def test_headers_that_do_not_end_are_not_waited_for(crawler: Future[tuple[bytes, float]]) -> None:
    answer, took_s = crawler.result(60)
    assert b"alive" not in answer
    assert took_s < HEADER_PATIENCE_S + 10
