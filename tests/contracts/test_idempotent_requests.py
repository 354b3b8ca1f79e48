"""Idempotency-Key at the gateway: what of a handler's endings is kept, and two gateways under repetition and kills."""

import asyncio
import concurrent.futures
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psutil
import pytest
from starlette.requests import Request
from starlette.responses import Response

from core.adapters.postgres.idempotency import PostgresIdempotency
from core.adapters.postgres.pool import Postgres, open_pool
from core.errors.exceptions import (
    Conflict,
    Defect,
    Invalid,
    NotFound,
    RateLimited,
    Unavailable,
    UnknownOutcome,
)
from core.model.principals import Principal
from core.settings import Settings
from gateway.idempotency import answered_once, answered_within, stored
from gateway.routing import Call
from tests import gateways
from tests.engines import House, free_port, new_databases, wait_for
from tests.gateways import FrontDoor, Process

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def shared(house: House) -> Settings:
    return new_databases(house)


@pytest.fixture
async def settings(shared: Settings) -> Settings:
    """The module's databases, emptied: making new ones for every test takes longer than the tests."""
    async with open_pool(shared, {}) as postgres, postgres.acquire() as connection:
        await connection.execute("truncate idempotency_keys, api_keys")
    return shared


@contextlib.asynccontextmanager
async def ledger(settings: Settings, **limits: Any) -> AsyncIterator[tuple[PostgresIdempotency, Postgres]]:
    async with open_pool(settings, {}) as postgres:
        yield PostgresIdempotency(postgres, **{"kept_s": 3_600, **limits}), postgres


async def ask(
    idempotency: Any, handler: Any, headers: list[tuple[str, str]] | None = None, once: Any = answered_once
) -> Response:
    """Send one request through the enforcement, as the door does."""
    given = [("Idempotency-Key", "a-key-of-mine")] if headers is None else headers
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/things",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
    }
    caller = Principal(subject="demo", tenant="demo", scopes=frozenset(), expires_at_s=0)
    services: Any = type("Services", (), {"idempotency": idempotency})()
    return await once(handler, Call(request=Request(scope), body=b"{}", principal=caller, services=services))


class Handler:
    """Ends as told, and counts how often it ran."""

    def __init__(self, *endings: Any) -> None:
        self.endings = list(endings)
        self.runs = 0

    async def __call__(self, _call: Call) -> Response:
        self.runs += 1
        ending = self.endings.pop(0)
        if isinstance(ending, BaseException):
            raise ending
        return Response(b"{}", ending, media_type="application/json")

    async def within(self, call: Call) -> Response:
        """Do it in one transaction with its answer."""
        async with call.work() as work:
            response = await self(call)
            await work.answer(stored(response))
            return response


ENFORCED = [(answered_once, Handler.__call__), (answered_within, Handler.within)]


@pytest.mark.parametrize(
    "ending", [200, 202, 204, 404, Invalid("no"), NotFound("no"), Conflict("no"), UnknownOutcome("perhaps")]
)
@pytest.mark.parametrize(("once", "does"), ENFORCED)
async def test_a_final_answer_is_given_again_without_running_again(
    settings: Settings, ending: Any, once: Any, does: Any
) -> None:
    async with ledger(settings) as (idempotency, _):
        handler = Handler(ending)

        async def run(call: Call) -> Response:
            return await does(handler, call)

        if isinstance(ending, Exception):
            with pytest.raises(type(ending)):
                await ask(idempotency, run, once=once)
        else:
            assert "idempotency-replayed" not in (await ask(idempotency, run, once=once)).headers
        again = await ask(idempotency, run, once=once)
        assert handler.runs == 1
        assert again.headers["idempotency-replayed"] == "true"
        assert again.status_code == (ending if isinstance(ending, int) else again.status_code)
        if isinstance(ending, Exception):
            assert again.headers["content-type"] == "application/problem+json"
            assert str(ending.args[0]) in bytes(again.body).decode()


@pytest.mark.parametrize(
    "ending", [500, 503, 429, Unavailable("away"), RateLimited("slowly"), Defect("oh"), ZeroDivisionError()]
)
async def test_what_was_not_done_may_be_tried_again_at_once(settings: Settings, ending: Any) -> None:
    async with ledger(settings) as (idempotency, _):
        handler = Handler(ending, 201)
        with pytest.raises(type(ending)) if isinstance(ending, Exception) else contextlib.nullcontext():
            await ask(idempotency, handler)
        assert (await ask(idempotency, handler)).status_code == 201
        assert handler.runs == 2


@pytest.mark.parametrize(
    "ending", [Unavailable("away"), Defect("oh"), ZeroDivisionError(), asyncio.CancelledError()]
)
async def test_work_that_was_not_done_may_be_tried_again_at_once(settings: Settings, ending: Any) -> None:
    async with ledger(settings) as (idempotency, _):
        handler = Handler(ending, 201)
        with pytest.raises(type(ending)):
            await ask(idempotency, handler.within, once=answered_within)
        assert (await ask(idempotency, handler.within, once=answered_within)).status_code == 201


async def test_a_refusal_before_the_work_gives_way_to_what_was_answered_before(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, _):
        await ask(idempotency, Handler(201).within, once=answered_within)
        again = await ask(idempotency, Handler(Invalid("no")), once=answered_within)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")


async def test_that_a_request_is_running_never_becomes_its_answer(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, _):
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(call: Call) -> Response:
            async with call.work() as work:
                begun.set()
                await go_on.wait()
                response = Response(b"{}", 201, media_type="application/json")
                await work.answer(stored(response))
                return response

        first = asyncio.create_task(ask(idempotency, slow, once=answered_within))
        await begun.wait()
        for _ in range(2):
            with pytest.raises(Conflict, match="IDEMPOTENCY_KEY_IN_USE"):
                await ask(idempotency, Handler(201).within, once=answered_within)
        # One that is refused before it looks at its key gives way to the one that runs, too.
        with pytest.raises(Conflict, match="IDEMPOTENCY_KEY_IN_USE"):
            await ask(idempotency, Handler(Invalid("no")), once=answered_within)
        go_on.set()
        assert (await first).status_code == 201
        again = await ask(idempotency, Handler().within, once=answered_within)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")


async def test_a_caller_who_hangs_up_leaves_the_key_in_use(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, _):
        with pytest.raises(asyncio.CancelledError):
            await ask(idempotency, Handler(asyncio.CancelledError()))
        with pytest.raises(Conflict, match="IDEMPOTENCY_KEY_IN_USE"):
            await ask(idempotency, Handler())


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, postgres):
        handler = Handler(201)

        async def closes(call: Call) -> Response:
            await postgres.pool.close()
            return await handler(call)

        assert (await ask(idempotency, closes)).status_code == 201


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ([], "IDEMPOTENCY_KEY_MISSING"),
        (["short"], "IDEMPOTENCY_KEY_MALFORMED"),
        (["x" * 256], "IDEMPOTENCY_KEY_MALFORMED"),
        (["with a blank"], "IDEMPOTENCY_KEY_MALFORMED"),
        (["ümlaut-in-it"], "IDEMPOTENCY_KEY_MALFORMED"),
        (["twice-the-same", "twice-the-same"], "IDEMPOTENCY_KEY_MALFORMED"),
        (['"short"'], "IDEMPOTENCY_KEY_MALFORMED"),
    ],
)
async def test_a_key_is_needed_and_well_formed(settings: Settings, keys: list[str], code: str) -> None:
    async with ledger(settings) as (idempotency, _):
        with pytest.raises(Invalid, match=code):
            await ask(idempotency, Handler(), [("Idempotency-Key", key) for key in keys])


@pytest.mark.parametrize("key", ["x" * 8, "x" * 255])
async def test_a_key_exactly_at_a_limit_is_taken(settings: Settings, key: str) -> None:
    async with ledger(settings) as (idempotency, _):
        assert (await ask(idempotency, Handler(200), [("Idempotency-Key", key)])).status_code == 200


async def test_a_quoted_key_names_the_same_request(settings: Settings) -> None:
    async with ledger(settings) as (idempotency, _):
        handler = Handler(200)
        await ask(idempotency, handler, [("Idempotency-Key", "key-of-mine")])
        await ask(idempotency, handler, [("Idempotency-Key", '"key-of-mine"')])
        assert handler.runs == 1


def test_only_headers_worth_keeping_are_kept() -> None:
    response = Response(b"{}", 201, {"Location": "/x", "Set-Cookie": "a=b"}, "application/json")
    assert stored(response).headers == {"location": "/x", "content-type": "application/json"}


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("idempotency"), house, redis_database=10)
    asyncio.run(gateways.prepare(door.settings, []))
    door.gateway.start()
    try:
        wait_for(door.alive, "the gateway being alive")
        yield door
    finally:
        door.gateway.stop()


@pytest.fixture(scope="module")
def urls(door: FrontDoor) -> Iterator[tuple[str, str]]:
    port = free_port()
    environment = {**door.gateway.environment, "TICKGATE_GATEWAY_PORT": str(port)}
    other = Process(["gateway"], environment, door.root / "gateway2.log")
    other.start()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: other.check() or gateways._status(f"{url}/livez") == 200, "the other gateway")
        yield door.url, url
    finally:
        other.stop()


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.signed_in() as http:
        yield http


def wish(**changes: Any) -> dict[str, Any]:
    expires_at_ms = int(time.time() * 1_000) + HOUR_MS
    return {"name": str(uuid.uuid4()), "scopes": ["keys:read"], "expires_at_ms": expires_at_ms, **changes}


def keys_named(http: httpx.Client, name: str) -> int:
    items = http.get("/v1/keys", params={"limit": 1_000}).json()["items"]
    return sum(item["name"] == name for item in items)


def test_fifty_equal_posts_at_once_make_one_key(http: httpx.Client, urls: tuple[str, str]) -> None:
    body = wish()
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Authorization": http.headers["Authorization"]}

    def post(number: int) -> httpx.Response:
        return httpx.post(f"{urls[number % 2]}/v1/keys", json=body, headers=headers, timeout=30)

    with concurrent.futures.ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(post, range(50)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {
        "IDEMPOTENCY_KEY_IN_USE"
    }
    made = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.content for answer in made}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in made) == 1
    assert keys_named(http, body["name"]) == 1
    again = post(1)
    assert (again.content, again.headers["idempotency-replayed"]) == (made[0].content, "true")


def test_a_gateway_killed_at_work_leaves_nothing_done_and_the_next_try_does_it(
    door: FrontDoor, http: httpx.Client
) -> None:
    port = free_port()
    doomed = Process(
        ["gateway"],
        {**door.gateway.environment, "TICKGATE_GATEWAY_PORT": str(port)},
        door.root / "doomed.log",
    )
    doomed.start()
    wait_for(
        lambda: doomed.check() or gateways._status(f"http://127.0.0.1:{port}/livez") == 200,
        "the doomed gateway",
    )
    body = wish()
    headers = {"Idempotency-Key": str(uuid.uuid4()), "Authorization": http.headers["Authorization"]}
    asyncio.run(_killed_at_work(door.settings, doomed, f"http://127.0.0.1:{port}/v1/keys", body, headers))
    doomed.stop()
    answers: list[httpx.Response] = []

    def done() -> bool:
        answers.append(http.post("/v1/keys", json=body, headers=headers))
        return answers[-1].status_code == 201

    # The ledger may take a moment to notice that nobody is there any more.
    wait_for(done, "the key being made")
    assert {one.json()["code"] for one in answers[:-1]} <= {"IDEMPOTENCY_KEY_IN_USE"}
    assert "idempotency-replayed" not in answers[-1].headers
    assert keys_named(http, body["name"]) == 1


async def _killed_at_work(
    settings: Settings, doomed: Process, url: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """Hold the table it writes to, wait until it hangs on that, and kill it."""
    async with (
        open_pool(settings, {}) as postgres,
        postgres.acquire() as connection,
        httpx.AsyncClient() as http,
        connection.transaction(),
    ):
        await connection.execute("lock table api_keys in access exclusive mode")
        posted = asyncio.create_task(http.post(url, json=body, headers=headers, timeout=30))
        async with asyncio.timeout(20):
            while not await connection.fetchval(
                "select count(*) from pg_locks where not granted and relation = 'api_keys'::regclass"
            ):
                await asyncio.sleep(0.02)
        for process in (*psutil.Process(doomed.pid).children(recursive=True), psutil.Process(doomed.pid)):
            process.kill()
        with pytest.raises(httpx.HTTPError):
            await posted


def test_another_body_route_or_query_under_the_same_key_is_refused(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    made = http.post("/v1/keys", json=wish(), headers=headers).json()
    for path, body in (
        ("/v1/keys", wish()),
        (f"/v1/keys/{made['id']}/rotate", {}),
        ("/v1/keys?x=1", wish()),
    ):
        answer = http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_refusal_is_final_too(http: httpx.Client) -> None:
    body, headers = wish(expires_at_ms=1), {"Idempotency-Key": str(uuid.uuid4())}
    first, again = (http.post("/v1/keys", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, first.json()["code"]) == (400, "INVALID_EXPIRY")
    assert (again.status_code, again.json()["code"]) == (400, "INVALID_EXPIRY")
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


def test_who_may_not_is_refused_before_the_key_is_looked_at(door: FrontDoor) -> None:
    with door.client() as anybody:
        assert anybody.post("/v1/keys", json=wish()).status_code == 401


def test_a_missing_key_is_said(http: httpx.Client) -> None:
    answer = http.post("/v1/keys", json=wish())
    assert (answer.status_code, answer.json()["code"]) == (400, "IDEMPOTENCY_KEY_MISSING")


def test_no_log_holds_a_key_of_a_request(http: httpx.Client, door: FrontDoor) -> None:
    key = str(uuid.uuid4())
    http.post("/v1/keys", json=wish(), headers={"Idempotency-Key": key})
    assert key not in door.gateway.log.read_text()
