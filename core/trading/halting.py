"""What a halt does to orders that are there already: which of them it covers, and how one that waits is denied.

HALTED, of a switch or a state, covers all. REDUCING covers those that could let a position grow or turn: the oldest of
those that make one smaller stay, as many as there is position for.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from core.model.ledger import Command, Holding, OrderEntry
from core.model.orders import OrderState
from core.model.risk import Denial, Restriction, SwitchScope, TradingState
from core.ports.access import Work
from core.trading.settling import Settlement

_S = OrderState
TAKEN_BACK: Final = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED, _S.PENDING_MODIFY})
"""Where an order works at its venue, and nobody has asked yet that it be taken back."""
_STOPPABLE: Final = TAKEN_BACK | {_S.QUEUED}


def covers(one: Restriction, account: str, strategy: str) -> bool:
    """Tell whether a restriction of the order's tenant, or of everybody, is of an order like this."""
    if one.scope is SwitchScope.ACCOUNT:
        return one.target == account
    return one.scope is not SwitchScope.STRATEGY or one.target == strategy


def growing(
    entries: Iterable[OrderEntry], held: Sequence[Holding], covered: Iterable[str], *, hedging: bool
) -> frozenset[str]:
    """Return the ids of those `covered` orders that could let a position grow or turn, filled beside the others.

    entries: the account's orders in motion, oldest first. What nobody can stop any more comes before what can be. On a
    hedging account an order makes only that position smaller which it names.
    """
    ids = frozenset(covered)
    lots: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in held:
        lots[one.ticket if hedging else one.symbol] += one.side.sign * one.volume
    # One that is being taken back leaves its place to others: it would keep them all from staying otherwise.
    staying = [one for one in entries if one.state is not _S.PENDING_CANCEL]
    found: set[str] = set()
    for entry in sorted(staying, key=lambda one: one.order.id in ids and one.state in _STOPPABLE):
        order, left = entry.order, entry.order.volume - entry.filled_volume
        name = order.position if hedging else order.symbol
        room = -lots[name] * order.side.sign
        if left <= room:
            lots[name] += order.side.sign * left
        elif order.id in ids:
            found.add(order.id)
        elif room > 0:
            lots[name] = Decimal(0)
    return frozenset(found)


def halted_for(scopes: str) -> Denial:
    """Return why an order that waits is not sent any more."""
    return Denial(
        check=1,
        code="TRADING_HALTED",
        reason=f"trading is halted for {scopes}",
        numbers={"halts": scopes},
    )


def reducing_only() -> Denial:
    """Return why one that waits, and could let a position grow, is not sent any more."""
    return Denial(
        check=1,
        code="REDUCING_ONLY",
        reason="only orders that make a position smaller are let through",
        numbers={"state": TradingState.REDUCING},
    )


async def deny(
    settlement: Settlement, work: Work, entry: OrderEntry, denial: Denial, scopes: str
) -> OrderEntry:
    """End an order that nobody has sent yet."""
    return await settlement.move(
        work,
        entry,
        _S.DENIED,
        what="order.denied",
        detail={"denials": [denial.code], "halts": scopes},
        done=Command.SEND,
        denials=(denial,),
    )


def names(restrictions: Iterable[Restriction]) -> str:
    """Return what is named of restrictions in denials and events: scope and target of each, once."""
    return ", ".join(dict.fromkeys(f"{one.scope} {one.target}".strip() for one in restrictions))
