"""Our gateway with one route more, and a bare one: `python -m tests.benchmarks.rig.gateway_apps gateway|plain`.

Both read the same body into the same type and answer the same; both run in the gateway's own server with its own
settings. The first is the whole gateway: every middleware, the access log, metrics, token, scope and rate limit. The
second is Starlette with a route and nothing else.
"""

import sys
from typing import Literal

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.infrastructure.config_manager import load_settings
from core.infrastructure.process import die_with_parent
from core.model.principals import Scope
from core.telemetry import metrics
from core.telemetry.logs import configure_logging
from gateway.__main__ import serve
from gateway.app import build_app
from gateway.bodies import parse_json
from gateway.catalog import ENDPOINTS
from gateway.routing import Call, Endpoint, RateClass

PATH = "/v1/measured"
BODY_BYTES_MAX = 4_096
APPLICATIONS = {
    "gateway": "tests.benchmarks.rig.gateway_apps:create_gateway",
    "plain": "tests.benchmarks.rig.gateway_apps:create_plain",
}


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order as it may come; the FastAPI stack has the same model."""

    client_order_id: str
    account: str
    symbol: str
    side: Literal["BUY", "SELL"]
    type: Literal["MARKET", "LIMIT", "STOP"]
    volume: float
    price: float
    stop_loss: float
    take_profit: float
    comment: str = ""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    state: str


_decode = msgspec.json.Decoder(Wish).decode
_encode = msgspec.json.Encoder().encode


def answer(wish: Wish) -> Response:
    body = _encode(Taken(id=wish.client_order_id, state="QUEUED"))
    return Response(body, media_type="application/json")


async def measured(call: Call) -> Response:
    """Take a wish and answer at once."""
    return answer(parse_json(call, Wish))


def create_gateway() -> Starlette:
    die_with_parent()
    settings = load_settings()
    configure_logging("gateway", settings.log_level)
    metrics.watch_process()
    row = Endpoint(
        method="POST",
        path=PATH,
        handler=measured,
        access=Scope.MARKET_READ,
        rate=RateClass.READ,
        body_bytes_max=BODY_BYTES_MAX,
    )
    return build_app(settings, (*ENDPOINTS, row))


async def plain(request: Request) -> Response:
    return answer(_decode(await request.body()))


def create_plain() -> Starlette:
    die_with_parent()
    return Starlette(routes=[Route(PATH, plain, methods=["POST"])])


if __name__ == "__main__":
    die_with_parent()
    serve(load_settings().gateway, APPLICATIONS[sys.argv[1]])
