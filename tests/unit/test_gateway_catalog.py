"""The route catalogue decides about every route, or the gateway does not start."""

import dataclasses
from typing import Any

import pytest

from core.errors.categories import Category
from core.errors.exceptions import Defect
from core.messages.jobs import JOBS, ErrorReport
from core.messages.similarity import SEARCHED
from core.model.principals import Scope
from core.model.records import SHELVES
from core.settings import WorkerSettings
from gateway.catalog import ENDPOINTS, routes
from gateway.problems import problem
from gateway.routing import Access, Endpoint
from workers.annotations import AnnotationJobs
from workers.exports import Exports
from workers.market import MarketReads
from workers.queues import QUEUES
from workers.records import RecordJobs
from workers.similarity import SimilarityJobs
from workers.topology import TopologyJobs
from workers.trading_reads import TradingJobs


def test_a_route_without_an_access_decision_refuses_to_start() -> None:
    undecided: Any = None
    with pytest.raises(Defect, match="ROUTE_WITHOUT_SCOPE"):
        routes([dataclasses.replace(ENDPOINTS[0], access=undecided)])


def test_an_endpoint_cannot_be_written_without_an_access_decision() -> None:
    incomplete: Any = {"method": "GET", "path": "/x", "handler": ENDPOINTS[0].handler}
    with pytest.raises(TypeError, match="access"):
        Endpoint(**incomplete)


def test_no_route_is_there_twice() -> None:
    with pytest.raises(Defect, match="ROUTE_TWICE"):
        routes([*ENDPOINTS, ENDPOINTS[0]])


def test_everything_below_v1_demands_a_token() -> None:
    decisions = {endpoint.path: endpoint.access for endpoint in ENDPOINTS if endpoint.path.startswith("/v1/")}
    assert decisions
    assert set(decisions.values()) <= {Access.AUTHENTICATED, *Scope}


@pytest.mark.parametrize("category", Category)
def test_every_category_becomes_a_problem(category: Category) -> None:
    answer = problem(ErrorReport(category=category, code="X", public="why"))
    assert 400 <= answer.status_code < 600
    assert answer.media_type == "application/problem+json"


def test_every_job_has_a_queue_that_runs_and_a_function() -> None:
    assert {kind.queue for kind in JOBS.values()} <= set(QUEUES)
    nothing: Any = None
    reads = MarketReads(registry=nothing, reader=nothing, quotes_kept=nothing, certifier=nothing)
    exports = Exports(
        limits=WorkerSettings(), registry=nothing, tick_pages=nothing, bar_pages=nothing, streams=nothing
    )
    probes = {f"{queue}.probe" for queue in QUEUES} | {"database.health", "orders.dispatch"}
    records = [RecordJobs(kind=kind, keeper=nothing) for kind in SHELVES]
    searches = [SimilarityJobs(kind=kind, keeper=nothing) for kind in SEARCHED]
    graph = TopologyJobs(topology=nothing)
    trading = TradingJobs(reads=nothing)
    makers = (reads, exports, *records, AnnotationJobs(keeper=nothing), *searches, graph, trading)
    served = {function.name for maker in makers for function in maker.functions()}
    assert served | probes == set(JOBS)
