"""/v1/queues: how the queues stand right now."""

import msgspec
from starlette.responses import Response

from core.messages.queues import QueueStanding
from gateway.answers import NextCursor
from gateway.parameters import NoParameters, parse
from gateway.routing import Call


class QueueList(msgspec.Struct, kw_only=True):
    """How every queue stands. Jobs of every tenant count."""

    items: list[QueueStanding]
    next_cursor: NextCursor


async def standings(call: Call) -> Response:
    """Say how every queue stands.

    How many jobs wait and run, for how long the oldest has been due, and how many workers are alive.
    """
    parse(call.request, NoParameters)
    body = QueueList(items=list(await call.services.queue_control.standings()), next_cursor=None)
    return Response(msgspec.json.encode(body), media_type="application/json")
