"""Thousands of requests made from the OpenAPI document, sensible and absurd: none breaks it or goes undocumented."""

import re
import time
from collections.abc import Iterator

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from gateway import openapi
from tests import gateways
from tests.engines import House
from tests.gateways import DAY_MS, FrontDoor, tick

SEED = 20_000
EXAMPLES_MAX = 10
"""Sensible and absurd requests each operation is fuzzed with, beside those that cover every limit of its schema."""
REQUESTS_MIN = 2_000
SHOWN_MAX = 12
ENDLESS = "/v1/orders/stream"
"""Its answer has no end to wait for."""
EXPECTED = {
    # A cursor is only ever one we gave; no schema can say which those are.
    ("positive_data_acceptance", "BAD_CURSOR"),
    # RFC 6585 has a status for it, which the tool does not expect.
    ("missing_required_header", "IF_MATCH_MISSING"),
    # No schema knows what time it is, which names of requests are used up, or a record's version.
    ("positive_data_acceptance", "VERSION_MISMATCH"),
    ("positive_data_acceptance", "CONTRADICTORY_BODY"),
    ("positive_data_acceptance", "SEARCH_EMPTY"),
    ("positive_data_acceptance", "INVALID_EXPIRY"),
    ("positive_data_acceptance", "IDEMPOTENCY_KEY_REUSED"),
}
STAY = re.compile("/v1/(sources|kill-switches|approvals)/[^/]+")
"""What is closed or released is over, and can still be read."""


@pytest.fixture(scope="module")
def door(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    root = tmp_path_factory.mktemp("conformance")
    rows = [tick(seq, DAY_MS + seq * 250, 1.1, 1.2) for seq in range(1, 200)]
    with gateways.running(gateways.build(root, house, redis_database=6), rows) as door:
        yield door


def _configuration(door: FrontDoor, headers: dict[str, str], examples: int) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "base-url": door.url,
            "headers": headers,
            "workers": 1,
            "continue-on-failure": True,
            "generation": {
                "deterministic": True,
                "database": "none",
                "max-examples": examples,
                "no-shrink": True,
                "with-security-parameters": False,
            },
        }
    )


def _run(door: FrontDoor, headers: dict[str, str], examples: int) -> tuple[int, list[str]]:
    """Return how many requests were made, and what was found."""
    schema = schemathesis.openapi.from_dict(
        openapi.document(), config=_configuration(door, headers, examples)
    ).exclude(path=ENDLESS)
    requests, found = 0, []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            requests += len(event.recorder.interactions)
            found += list(_findings(event.recorder))
        elif isinstance(event, events.NonFatalError | events.FatalError):
            found.append(f"the run itself: {getattr(event, 'info', None) or event}")
    return requests, found


def _findings(recorder: ScenarioRecorder) -> Iterator[str]:
    for case_id, checks in recorder.checks.items():
        answered = recorder.interactions[case_id].response
        text = answered.content[:300].decode(errors="replace") if answered and answered.content else ""
        for check in checks:
            if check.failure_info is None or (check.name, _code(text)) in EXPECTED:
                continue
            if answered and answered.status_code == 503 and _answers_now(recorder.cases[case_id].value):
                continue
            path = answered.request.path_url.partition("?")[0] if answered else ""
            if path == ENDLESS or (check.name == "use_after_free" and STAY.fullmatch(path)):
                continue
            failure, request = check.failure_info.failure, check.failure_info.code_sample
            yield f"{recorder.label}: {failure.title}: {failure.message}\n{request}\n{text}"


def _answers_now(case: schemathesis.Case) -> bool:
    """Ask again. The engines' disks are shared with whatever else this machine does, and a 503 says when to retry."""
    time.sleep(1)
    return bool(case.call().status_code < 500)


def _code(text: str) -> str:
    found = re.search(r'"code":"([A-Z_]+)"', text)
    return found[1] if found else ""


@pytest.mark.timeout(300)
def test_with_a_token_everything_is_answered_as_documented(door: FrontDoor) -> None:
    requests, found = _run(door, {"Authorization": f"Bearer {door.token()}"}, EXAMPLES_MAX)
    assert found == [], f"{len(found)} findings:\n" + "\n".join(found[:SHOWN_MAX])
    assert requests >= REQUESTS_MIN


def test_without_a_token_everything_is_refused_as_documented(door: FrontDoor) -> None:
    requests, found = _run(door, {}, 2)
    assert found == [], f"{len(found)} findings:\n" + "\n".join(found[:SHOWN_MAX])
    assert requests >= REQUESTS_MIN // 10
