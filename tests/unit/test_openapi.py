"""The OpenAPI document says of every route what its row in the catalogue says, and its checked-in copy is this one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.messages.jobs import ErrorReport
from core.model.principals import Scope
from gateway import openapi
from gateway.catalog import ENDPOINTS
from gateway.docs import lowered
from gateway.openapi_shared import PROBLEMS, Shared
from gateway.parameters import wire_of
from gateway.problems import problem
from gateway.routing import Endpoint

COPY = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT: dict[str, Any] = openapi.document()
OPERATIONS = [(e, DOCUMENT["paths"][e.path][e.method.lower()]) for e in ENDPOINTS]


def _name(one: Any) -> str:
    return f"{one.method} {one.path}" if isinstance(one, Endpoint) else ""


every_operation = pytest.mark.parametrize(("endpoint", "operation"), OPERATIONS, ids=_name)


def test_the_checked_in_copy_is_this_document() -> None:
    assert COPY.read_bytes() == openapi.written(), "python -m gateway.openapi > docs/openapi.json"


def test_the_document_has_the_catalogues_routes_and_no_other() -> None:
    found = {(method.upper(), path) for path, row in DOCUMENT["paths"].items() for method in row}
    assert found == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


def test_every_reference_leads_somewhere() -> None:
    for reference in _references(DOCUMENT):
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_every_component_is_used() -> None:
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert schemas <= set(_references(DOCUMENT))


@every_operation
def test_an_operation_has_its_own_words(endpoint: Endpoint, operation: dict[str, Any]) -> None:
    assert operation["summary"].endswith((".", "?"))
    assert endpoint.answers, "what it answers stands in the catalogue"
    assert all(answer.description for answer in endpoint.answers.values())


@every_operation
def test_a_parameter_has_its_words(endpoint: Endpoint, operation: dict[str, Any]) -> None:
    for name in endpoint.query.__struct_fields__ if endpoint.query else ():
        parameter, wire = wire_of(name)
        assert wire.description, f"gateway/parameters.py says nothing of {name}"
        assert parameter in {row.get("name") for row in operation["parameters"]}
    in_path = {row["name"] for row in operation["parameters"] if row.get("in") == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", endpoint.path))


@every_operation
def test_an_operations_credentials_are_those_of_its_access_decision(
    endpoint: Endpoint, operation: dict[str, Any]
) -> None:
    scopes = {scope for one in operation["security"] for names in one.values() for scope in names}
    assert scopes == ({endpoint.access.value} if isinstance(endpoint.access, Scope) else set())
    if endpoint.path.startswith("/v1/"):
        assert operation["security"]
        assert {} not in operation["security"]


@pytest.mark.parametrize(("status", "shared"), PROBLEMS.items())
def test_a_problem_is_shown_as_it_would_be_answered(status: int, shared: Shared) -> None:
    shown = DOCUMENT["components"]["responses"][shared.name]["content"]["application/problem+json"]["example"]
    answer = problem(ErrorReport(category=shared.category, code=shared.code, public=shown["detail"]))
    assert answer.status_code == status
    assert {**msgspec.json.decode(answer.body), "trace_id": shown["trace_id"]} == shown


def test_the_pages_rendition_says_nothing_that_openapi_3_0_does_not_know() -> None:
    tree = msgspec.json.decode(lowered(openapi.written()))
    assert tree["openapi"] == "3.0.3"
    assert '"type":"null"' not in msgspec.json.encode(tree["components"]["schemas"]).decode()


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
