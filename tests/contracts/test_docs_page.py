"""The documentation page: where it is turned on, everything it needs comes from the gateway, and nothing else runs."""

import re
from collections.abc import Iterator

import httpx
import pytest

from gateway import openapi
from tests import gateways
from tests.engines import House


@pytest.fixture(scope="module")
def http(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    door = gateways.build(tmp_path_factory.mktemp("docs"), house, redis_database=4, docs=True)
    with gateways.running(door, []) as door, door.client() as http:
        yield http


def test_every_file_the_page_names_is_served(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) >= 4
    for name in named:
        answer = http.get(f"/{name}")
        assert answer.status_code == 200, name
        assert answer.content
        assert "max-age" in answer.headers["cache-control"]


def test_nothing_on_the_page_comes_from_elsewhere_or_runs_inline(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert not re.search(r"https?://|<script>|<style>|\son\w+=|javascript:", page.text)
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"


@pytest.mark.parametrize(
    "name", ["index.html", "swagger-initializer.js", "..%2fapp.py", "%2e%2e/app.py", "docs.html", "x"]
)
def test_a_file_nobody_named_is_not_there(http: httpx.Client, name: str) -> None:
    assert http.get(f"/docs/{name}").status_code == 404


def test_the_document_is_for_everybody_then(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json() == openapi.document()
    assert http.get("/docs/openapi-3.0.json").json()["openapi"] == "3.0.3"
    links = http.get("/").json()["links"]
    for link in ("docs", "openapi.json", "livez", "readyz"):
        assert http.get(links[link]).status_code == 200
