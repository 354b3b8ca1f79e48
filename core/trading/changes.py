"""What may be asked of an order that is there: to take it back, to change its prices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.errors.exceptions import Conflict, Denied
from core.model.ledger import Command, OrderEntry
from core.model.orders import TERMINAL, OrderState, OrderType
from core.model.venues import OrderChange
from core.ports.access import Work
from core.ports.orders import OrderLedger
from core.trading.dispatch import changed
from core.trading.settling import Settlement
from core.trading.submission import OrderEntrance

_S = OrderState
_WORKS = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderChanges:
    """Takes in what is asked of orders; what the venue has to do is noted in the same transaction."""

    ledger: OrderLedger
    settlement: Settlement
    entrance: OrderEntrance

    async def cancel(self, work: Work, order_id: str, *, actor: str) -> OrderEntry:
        """Take an order back: at once where nobody has sent it, else as soon as its venue has done so.

        Asked again, it changes nothing. Raises: NotFound, Unavailable, Conflict: it has ended (ORDER_ENDED), or is
        just being sent (ORDER_IN_FLIGHT).
        """
        entry = await self.ledger.locked(work, order_id)
        if entry.state in {_S.PENDING_CANCEL, _S.CANCELED}:
            return entry
        if entry.state is _S.QUEUED:
            await self.ledger.done(work, order_id, Command.SEND)
            return await self.settlement.move(work, entry, _S.CANCELED, what="order.canceled", actor=actor)
        if entry.state not in _WORKS | {_S.PENDING_MODIFY}:
            raise _refusal(entry)
        await self.ledger.done(work, order_id, Command.MODIFY)
        await self.ledger.put(work, entry, Command.CANCEL)
        return await self.settlement.move(
            work, entry, _S.PENDING_CANCEL, what="order.cancel_asked", actor=actor
        )

    async def modify(self, work: Work, order_id: str, change: OrderChange, *, actor: str) -> OrderEntry:
        """Ask the venue to change a working order's prices.

        Raises: NotFound, Unavailable, Denied: the changed order would not pass the risk checks. Conflict: it has ended
        (ORDER_ENDED), does not work yet or is being changed (ORDER_IN_FLIGHT), or has no such price (PRICE_NOT_ITS).
        """
        listing, market = await self.entrance.sight(work, (await self.ledger.found(work, order_id)).order)
        await self.entrance.risk.hold(work)
        entry = await self.ledger.locked(work, order_id)
        if entry.state not in _WORKS:
            raise _refusal(entry)
        fields = changed(change)
        _require_own_prices(entry, fields)
        after = replace(entry.order, **fields)  # type: ignore[arg-type]
        changed_entry = replace(entry, order=after)
        if denials := await self.entrance.assess_again(work, changed_entry, listing, market):
            why = "; ".join(str(denial) for denial in denials)
            raise Denied(f"the changed order is denied: {why}", code=denials[0].code)
        await self.ledger.put(work, entry, Command.MODIFY, change)
        detail = {name: str(value) for name, value in fields.items()}
        return await self.settlement.move(
            work, entry, _S.PENDING_MODIFY, what="order.modify_asked", detail=detail, actor=actor
        )


def _require_own_prices(entry: OrderEntry, fields: Mapping[str, object]) -> None:
    kind = entry.order.type
    has_price = kind in {OrderType.LIMIT, OrderType.STOP_LIMIT}
    has_stop = kind in {OrderType.STOP, OrderType.STOP_LIMIT}
    for name, its in (("price", has_price), ("stop_price", has_stop)):
        if name in fields and not its:
            raise Conflict(f"a {kind} order has no {name}", code="PRICE_NOT_ITS")


def _refusal(entry: OrderEntry) -> Conflict:
    if entry.state in TERMINAL:
        return Conflict(f"the order has ended: {entry.state}", code="ORDER_ENDED")
    return Conflict(f"the order is {entry.state}; try again in a moment", code="ORDER_IN_FLIGHT")
