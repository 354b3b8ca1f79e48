"""Is the gateway alive, is it ready, what does it measure, and where is the documentation."""

import msgspec
from starlette.responses import Response

from core.telemetry import metrics
from gateway.routing import Call


async def livez(_call: Call) -> Response:
    """Answer as long as the loop turns; asks nobody."""
    return Response(b"alive\n", media_type="text/plain")


async def readyz(call: Call) -> Response:
    """Answer 200 when a market read would be answered."""
    problems = await call.services.unhealthy()
    body = msgspec.json.encode({"ready": not problems, "problems": problems})
    return Response(body, 503 if problems else 200, media_type="application/json")


async def measured(_call: Call) -> Response:
    return Response(metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})


async def index(_call: Call) -> Response:
    body = {
        "name": "tickgate",
        "token": "POST /oauth/token (grant_type=client_credentials, HTTP Basic)",
        "market": [
            "/v1/symbols",
            "/v1/quotes",
            "/v1/ticks",
            "/v1/bars",
            "/v1/quarantine",
            "/v1/completeness",
        ],
        "documentation": "docs/ in the repository",
    }
    return Response(msgspec.json.encode(body), media_type="application/json")
