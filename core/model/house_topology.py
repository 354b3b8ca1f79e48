"""tickgate's own topology, ready to be loaded: its processes, its five stores, and what fails when one of them does.

`await topology.load(tenant, SERVICES, FLOWS, version=...)`. docs/databases.md says the same in words.
"""

from typing import Final, Literal

from core.model.records import Flow, Service

Sort = Literal["calls", "reads", "writes", "publishes", "consumes"]

SERVICES: Final = {
    "terminal": Service(title="MetaTrader 5 terminal", sort="external", critical=True),
    "connector": Service(
        title="Connector: reads ticks into a spool of its own", sort="process", critical=True
    ),
    "bridge": Service(title="Bridge: stores ticks, tells them live", sort="process", critical=True),
    "gateway": Service(title="Gateway: lets callers in, asks workers", sort="process", critical=True),
    "worker-database": Service(title="Worker: reads and records", sort="process"),
    "worker-trading": Service(title="Worker: orders", sort="process"),
    "worker-chain": Service(title="Worker: chains", sort="process"),
    "ledger": Service(title="PostgreSQL", sort="store", critical=True),
    "ticks": Service(title="ClickHouse", sort="store", critical=True),
    "queue": Service(title="Redis, Valkey or Dragonfly", sort="store", critical=True),
    "similarity": Service(title="Weaviate", sort="store"),
    "topology": Service(title="ArangoDB", sort="store"),
}


def _flow(origin: str, sort: Sort, target: str, *, required: bool = True) -> tuple[str, Flow]:
    return f"{origin}-{sort}-{target}", Flow(origin=origin, target=target, sort=sort, required=required)


FLOWS: Final = dict(
    (
        _flow("connector", "reads", "terminal"),
        # Its spool holds what the bridge does not take.
        _flow("connector", "publishes", "bridge", required=False),
        _flow("bridge", "writes", "ticks"),
        _flow("bridge", "publishes", "queue", required=False),
        # One that holds its lease goes on storing ticks without the ledger.
        _flow("bridge", "writes", "ledger", required=False),
        _flow("gateway", "publishes", "queue"),
        # Callers already verified come in for a while.
        _flow("gateway", "reads", "ledger", required=False),
        _flow("worker-database", "consumes", "queue"),
        _flow("worker-trading", "consumes", "queue"),
        _flow("worker-chain", "consumes", "queue"),
        _flow("worker-database", "writes", "ledger", required=False),
        _flow("worker-database", "reads", "ticks", required=False),
        _flow("worker-database", "writes", "similarity", required=False),
        _flow("worker-database", "writes", "topology", required=False),
    )
)
