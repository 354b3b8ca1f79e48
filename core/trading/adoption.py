"""Orders that somebody else put at a venue: kept here, marked so, and audited."""

from core.model.audit import AuditEvent
from core.model.ledger import OrderEntry, magic_of
from core.model.orders import Order
from core.model.venues import TradingAccount, VenueOrder
from core.trading.settling import ACTOR
from core.trading.submission import asked


def external_order(account: TradingAccount, found: VenueOrder, order_id: str) -> OrderEntry:
    order = Order(
        id=order_id,
        tenant=account.tenant,
        account=account.id,
        symbol=found.symbol,
        side=found.side,
        type=found.type,
        volume=found.volume,
        price=found.price,
        stop_price=found.stop_price,
        stop_loss=found.stop_loss,
        take_profit=found.take_profit,
        magic=magic_of(order_id),
    )
    return OrderEntry(
        order=order,
        state=found.state,
        version=1,
        filled_volume=found.volume - found.volume_left,
        venue_order=found.ticket,
        submitted_by="external",
        external=True,
    )


def adopted(entry: OrderEntry) -> AuditEvent:
    order = entry.order
    return AuditEvent(
        type="order.adopted",
        actor=ACTOR,
        account=order.account,
        order=order.id,
        symbol=order.symbol,
        facts={"asked": asked(order), "to": str(entry.state), "venue_order": entry.venue_order},
    )
