"""Is the gateway alive, is it ready, what does it measure, and where is the documentation."""

from importlib.metadata import version
from typing import Final

import msgspec
from starlette.responses import Response

from core.telemetry import metrics
from gateway.authentication import is_operator
from gateway.routing import Call

VERSION: Final = version("tickgate")


async def livez(_call: Call) -> Response:
    """Answer as long as the loop turns; asks nobody."""
    return Response(b"alive\n", media_type="text/plain")


async def readyz(call: Call) -> Response:
    """Answer 200 when a market read would be answered; only operators are told what is missing."""
    problems = await call.services.unhealthy()
    told = is_operator(call.request, call.services.settings.gateway.metrics_token.reveal())
    body = msgspec.json.encode({"ready": not problems, "problems": problems if told else {}})
    return Response(body, 503 if problems else 200, media_type="application/json")


async def measured(_call: Call) -> Response:
    """Answer every metric of this process in Prometheus' text format."""
    return Response(metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})


async def index(call: Call) -> Response:
    """Say where things are: every route whose path is whole."""
    hidden = {"/", "/metrics", *(() if call.services.settings.gateway.docs else ("/docs",))}
    paths = [endpoint.path for endpoint in call.request.app.state.endpoints]
    links = {path.rpartition("/")[2]: path for path in paths if "{" not in path and path not in hidden}
    body = {"name": "tickgate", "version": VERSION, "links": links}
    return Response(msgspec.json.encode(body), media_type="application/json")
