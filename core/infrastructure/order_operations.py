"""What an operator looks at of orders from the command line, without any credential of its own."""

from collections.abc import Mapping, Sequence

from core.infrastructure.central_hub import open_hub
from core.model.ledger import OrderEntry, OrderEvent
from core.settings import Settings


async def listed(
    settings: Settings, tenant: str, where: Mapping[str, str], limit: int
) -> Sequence[OrderEntry]:
    """Return a tenant's newest orders. where: as `TradingReads.orders` has it. Raises: Unavailable."""
    async with open_hub(settings, {"trading_reads"}) as hub:
        found: Sequence[OrderEntry] = await hub["trading_reads"].orders(
            tenant, before=None, limit=limit, where=where
        )
    return found


async def shown(settings: Settings, tenant: str, order_id: str) -> tuple[OrderEntry, Sequence[OrderEvent]]:
    """Return an order and all that happened to it. Raises: NotFound (code ORDER_NOT_FOUND), Unavailable."""
    async with open_hub(settings, {"trading_reads"}) as hub:
        entry: OrderEntry = await hub["trading_reads"].order(tenant, order_id)
        events: Sequence[OrderEvent] = await hub["trading_reads"].events(tenant, order_id)
    return entry, events
