"""Records through the front door: create, read, list, update with If-Match, delete."""

import uuid
from collections.abc import Iterator

import httpx
import msgspec
import pytest

from core.model.records import SHELVES, RecordKind
from tests import gateways
from tests.engines import House
from tests.gateways import FrontDoor
from tests.record_keepers import body_of

KINDS = [kind for kind in SHELVES if kind is not RecordKind.FLOWS]


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    door = gateways.build(tmp_path_factory.mktemp("records"), house, redis_database=5)
    with gateways.running(door, []) as door:
        yield door


@pytest.fixture(scope="module")
def http(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.client() as http:
        http.headers["Authorization"] = f"Bearer {door.token('demo')}"
        yield http


def wish(kind: RecordKind, number: int = 0) -> dict[str, object]:
    found: dict[str, object] = msgspec.to_builtins(body_of(kind, number))
    return found


def post(http: httpx.Client, kind: RecordKind, body: dict[str, object], key: str = "") -> httpx.Response:
    return http.post(f"/v1/{kind}", json=body, headers={"Idempotency-Key": key or str(uuid.uuid4())})


def kept(answer: httpx.Response) -> dict[str, object]:
    """Return what was written of a record, without what is told beside it."""
    return {field: value for field, value in answer.json().items() if field != "standing"}


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex[:12]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_lives_and_ends(http: httpx.Client, kind: RecordKind, name: str) -> None:
    made = post(http, kind, {**wish(kind), "id": name})
    assert (made.status_code, made.headers["location"]) == (201, f"/v1/{kind}/{name}")
    assert made.headers["etag"] == f'"{made.json()["version"]}"'
    path = made.headers["location"]
    read = http.get(path)
    assert kept(read) == made.json()
    assert {field: read.json()[field] for field in wish(kind)} == wish(kind)
    # How an account stands changes without its version.
    unchanged = 200 if kind is RecordKind.ACCOUNTS else 304
    assert http.get(path, headers={"If-None-Match": made.headers["etag"]}).status_code == unchanged
    changed = http.put(path, json=wish(kind, 1), headers={"If-Match": made.headers["etag"]})
    assert changed.status_code == 200, changed.text
    assert kept(http.get(path)) == changed.json()
    assert http.get(path, headers={"If-None-Match": made.headers["etag"]}).status_code == 200
    late = http.put(path, json=wish(kind, 2), headers={"If-Match": made.headers["etag"]})
    assert (late.status_code, late.json()["code"]) == (412, "VERSION_MISMATCH")
    assert http.delete(path, headers={"If-Match": made.headers["etag"]}).status_code == 412
    assert http.delete(path, headers={"If-Match": changed.headers["etag"]}).status_code == 204
    assert (http.get(path).status_code, http.get(path).json()["code"]) == (404, "RECORD_NOT_FOUND")


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_is_walked_by_its_cursor(http: httpx.Client, kind: RecordKind, name: str) -> None:
    names = [f"{name}-{number}" for number in range(5)]
    for number, one in enumerate(names):
        assert post(http, kind, {**wish(kind, number), "id": one}).status_code == 201
    seen, cursor = [], f"{name}-"
    while cursor:
        page = http.get(f"/v1/{kind}", params={"cursor": cursor, "limit": 2})
        assert page.status_code == 200, page.text
        seen += [item["id"] for item in page.json()["items"] if item["id"].startswith(name)]
        cursor = page.json()["next_cursor"]
        if cursor and not cursor.startswith(name):
            break
    assert seen == names


def test_a_creation_sent_again_is_done_once(http: httpx.Client) -> None:
    key = str(uuid.uuid4())
    first, again = (post(http, RecordKind.ACCOUNTS, wish(RecordKind.ACCOUNTS), key) for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["etag"] == first.headers["etag"]


def test_a_name_that_is_taken_is_refused(http: httpx.Client, name: str) -> None:
    body = {**wish(RecordKind.ACCOUNTS), "id": name}
    assert post(http, RecordKind.ACCOUNTS, body).status_code == 201
    refused = post(http, RecordKind.ACCOUNTS, body)
    assert (refused.status_code, refused.json()["code"]) == (409, "RECORD_EXISTS")


def test_a_terminal_holds_one_account(http: httpx.Client, name: str) -> None:
    at_terminal = {**wish(RecordKind.ACCOUNTS), "venue": "mt5", "source": f"s-{name}"}
    assert post(http, RecordKind.ACCOUNTS, {**at_terminal, "id": name}).status_code == 201
    second = post(http, RecordKind.ACCOUNTS, {**at_terminal, "id": f"{name}-2"})
    assert (second.status_code, second.json()["code"]) == (409, "TERMINAL_TAKEN")
    elsewhere = post(http, RecordKind.ACCOUNTS, {**at_terminal, "id": f"{name}-2", "source": f"t-{name}"})
    path = elsewhere.headers["location"]
    moved = http.put(path, json=at_terminal, headers={"If-Match": "*"})
    assert (moved.status_code, moved.json()["code"]) == (409, "TERMINAL_TAKEN")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({}, 428, "IF_MATCH_MISSING"),
        ({"If-Match": "abc"}, 400, "IF_MATCH_MALFORMED"),
        ({"If-Match": '"a", "b"'}, 400, "IF_MATCH_MALFORMED"),
        ({"If-Match": 'W/"a"'}, 412, "VERSION_MISMATCH"),
        ({"If-Match": '"a"'}, 412, "VERSION_MISMATCH"),
        ({"If-Match": '""'}, 412, "VERSION_MISMATCH"),
    ],
    ids=["none", "unquoted", "two", "weak", "another", "empty"],
)
def test_who_does_not_say_which_version_changes_nothing(
    http: httpx.Client, name: str, method: str, given: dict[str, str], status: int, code: str
) -> None:
    made = post(http, RecordKind.ACCOUNTS, {**wish(RecordKind.ACCOUNTS), "id": name})
    path = made.headers["location"]
    body = {"json": wish(RecordKind.ACCOUNTS, 1)} if method == "PUT" else {}
    refused = http.request(method, path, headers=given, **body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert kept(http.get(path)) == made.json()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"currency": "euro"}, "currency"),
        ({"login": 0}, "login"),
        ({"leverage": "100"}, "leverage"),
        ({"trade_mode": "play"}, "trade_mode"),
        ({"title": "a\nb"}, "title"),
        ({"id": "a/b"}, "id"),
        ({"id": ""}, "id"),
        ({"balance": 1}, "balance"),
    ],
    ids=["case", "zero", "text", "choice", "line", "slash", "empty", "unknown"],
)
def test_what_does_not_fit_is_named(http: httpx.Client, changes: dict[str, object], field: str) -> None:
    refused = post(http, RecordKind.ACCOUNTS, {**wish(RecordKind.ACCOUNTS), **changes})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_BODY")
    assert [problem["parameter"] for problem in refused.json()["errors"]] == [field]


@pytest.mark.parametrize("text", ["1e-5", "-1", "0", "0.00", "01", ".5", "5.", "1,5", "NaN", "1" * 13])
def test_a_decimal_is_written_plainly(http: httpx.Client, text: str) -> None:
    refused = post(http, RecordKind.INSTRUMENTS, {**wish(RecordKind.INSTRUMENTS), "tick_size": text})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_BODY")


def test_an_id_no_record_can_have_is_not_found(http: httpx.Client) -> None:
    for odd in ("a%20b", "x" * 65, "ü", "a,b"):
        answer = http.get(f"/v1/accounts/{odd}")
        assert (answer.status_code, answer.json()["code"]) == (404, "RECORD_NOT_FOUND")


def test_a_list_is_filtered_by_what_its_kind_allows_only(http: httpx.Client, name: str) -> None:
    body = {**wish(RecordKind.ACCOUNTS), "id": name, "server": f"S-{name}"}
    assert post(http, RecordKind.ACCOUNTS, body).status_code == 201
    found = http.get("/v1/accounts", params={"server": f"S-{name}"}).json()
    assert [item["id"] for item in found["items"]] == [name]
    refused = http.get("/v1/accounts", params={"currency": "EUR"})
    assert (refused.status_code, refused.json()["code"]) == (400, "UNKNOWN_PARAMETER")


def test_what_cannot_be_true_together_is_refused(http: httpx.Client) -> None:
    body = {**wish(RecordKind.INSTRUMENTS), "volume_min": "10", "volume_max": "9.99"}
    refused = post(http, RecordKind.INSTRUMENTS, body)
    assert (refused.status_code, refused.json()["code"]) == (400, "CONTRADICTORY_BODY")


def marked(http: httpx.Client, symbol: str, **asked: object) -> tuple[list[str], str | None]:
    answer = http.get("/v1/marks", params={"symbol": symbol, **asked})
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]], answer.json()["next_cursor"]


def test_annotations_are_found_by_their_time(http: httpx.Client, name: str) -> None:
    day_ms = 86_400_000
    for number in range(4):
        mark = {"symbol": name, "start_ms": number * day_ms, "label": "news", "id": f"{name}{number}"}
        assert post(http, RecordKind.ANNOTATIONS, mark).status_code == 201
    lasting = {"symbol": name, "start_ms": day_ms, "stop_ms": 3 * day_ms, "label": "trend", "id": f"{name}x"}
    assert post(http, RecordKind.ANNOTATIONS, lasting).status_code == 201
    everything = [f"{name}{end}" for end in ("0", "1", "x", "2", "3")]
    assert marked(http, name) == (everything, None)
    assert marked(http, name, **{"from": 2 * day_ms, "to": "1970-01-03T12:00:00Z"})[0] == [
        f"{name}x",
        f"{name}2",
    ]
    seen, cursor = [], None
    while True:
        page, cursor = marked(http, name, limit=2, **({"cursor": cursor} if cursor else {}))
        seen += page
        if cursor is None:
            break
    assert seen == everything
    refused = http.get("/v1/marks", params={"symbol": name, "cursor": "nonsense"})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAMETER")


def searched(http: httpx.Client, kind: str, **wish: object) -> list[tuple[str, float]]:
    answer = http.post(f"/v1/{kind}/search", json=wish)
    assert answer.status_code == 200, answer.text
    assert answer.json()["next_cursor"] is None
    return [(item["id"], item["score"]) for item in answer.json()["items"]]


def test_records_are_found_by_what_they_are_like(http: httpx.Client, name: str) -> None:
    for number, message in enumerate(("the lease ran out", "connection reset at batch 4", "margin too low")):
        body = {**wish(RecordKind.INCIDENTS), "message": message, "service": name, "id": f"{name}{number}"}
        assert post(http, RecordKind.INCIDENTS, body).status_code == 201
    filters = {"service": name}
    like = {**wish(RecordKind.INCIDENTS), "message": "connection reset at batch 90", "service": name}
    found = searched(http, "incidents", like=like, filters=filters)
    assert found[0][0] == f"{name}1"
    assert found[0][1] == pytest.approx(1, abs=1e-4)
    assert [one for one, _ in searched(http, "incidents", text="MARGIN", filters=filters)] == [f"{name}2"]
    others = searched(http, "incidents", like=f"{name}1", filters=filters)
    assert {one for one, _ in others} == {f"{name}0", f"{name}2"}
    assert len(searched(http, "incidents", like=f"{name}1", filters=filters, limit=1)) == 1
    weighted = searched(http, "incidents", like=like, text="lease", weight=0.1, filters=filters)
    assert weighted[0][0] == f"{name}0"


def test_what_was_found_is_shown_as_a_record(http: httpx.Client, name: str) -> None:
    body = {**wish(RecordKind.MARKET_WINDOWS), "symbol": name, "id": name}
    made = post(http, RecordKind.MARKET_WINDOWS, body).json()
    answer = http.post(
        "/v1/market-windows/search",
        json={"like": wish(RecordKind.MARKET_WINDOWS), "filters": {"symbol": name}},
    )
    assert answer.json() == {"items": [{**made, "score": pytest.approx(1, abs=1e-4)}], "next_cursor": None}


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "SEARCH_EMPTY"),
        ({"text": "  "}, "SEARCH_EMPTY"),
        ({"like": {}, "text": "x"}, "INVALID_BODY"),
        ({"text": "x", "filters": {"at_ms": "1"}}, "INVALID_BODY"),
        ({"text": "x", "weight": 1.1}, "INVALID_BODY"),
        ({"text": "x", "limit": 101}, "INVALID_BODY"),
        ({"text": "x", "like": True}, "INVALID_BODY"),
        ({"like": "no id/"}, "INVALID_BODY"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    http: httpx.Client, asked: dict[str, object], code: str
) -> None:
    refused = http.post("/v1/incidents/search", json=asked)
    assert (refused.status_code, refused.json()["code"]) == (400, code), refused.text


def test_the_like_of_a_record_that_is_not_there_is_not_found(http: httpx.Client, name: str) -> None:
    missing = http.post("/v1/incidents/search", json={"like": name})
    assert (missing.status_code, missing.json()["code"]) == (404, "RECORD_NOT_FOUND")


def test_a_record_may_be_called_search(http: httpx.Client) -> None:
    assert post(http, RecordKind.INCIDENTS, {**wish(RecordKind.INCIDENTS), "id": "search"}).status_code == 201
    assert http.get("/v1/incidents/search").json()["id"] == "search"
    assert http.delete("/v1/incidents/search", headers={"If-Match": "*"}).status_code == 204
