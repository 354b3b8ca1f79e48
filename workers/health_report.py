"""Tells a gateway how the stores stand that only workers have open."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from core.infrastructure.central_hub import Hub
from core.infrastructure.health_watch import HealthWatch
from core.messages.jobs import Answer
from core.ports.jobs import JobFunction
from core.settings import Settings

OBSERVER = "worker-database"


def database_functions(hub: Hub, _settings: Settings) -> Sequence[JobFunction]:
    """Return what answers how the stores of the database worker stand."""
    watch = HealthWatch(hub, OBSERVER)

    async def health(_ctx: Mapping[str, Any], _request: Any, **_rest: Any) -> Answer:
        return Answer(content_type="application/json", body=msgspec.json.encode(await watch.report()))

    return [JobFunction(name="database.health", run=health)]
