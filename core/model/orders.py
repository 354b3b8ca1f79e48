"""Orders: what is asked of a venue, the states it goes through, and which moves between them are legal.

Source of the states: FIX 5.0 SP2, appendix D, and what venues really do: a cancelled order may still be filled.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final


class Side(StrEnum):
    """Which way."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """1 adds to a long position, -1 to a short one."""
        return 1 if self is Side.BUY else -1


class OrderType(StrEnum):
    """When and at what price it may trade."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop-limit"


class TimeInForce(StrEnum):
    """How long it stays. GTD: until a date; IOC, FOK: at once, in part or only whole."""

    GTC = "gtc"
    DAY = "day"
    GTD = "gtd"
    IOC = "ioc"
    FOK = "fok"


class OrderState(StrEnum):
    """Where an order stands. DENIED: by us; REJECTED: by the venue; UNKNOWN: sent, and nobody knows more."""

    CREATED = "CREATED"
    DENIED = "DENIED"
    QUEUED = "QUEUED"
    SENDING = "SENDING"
    ACCEPTED = "ACCEPTED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"
    PENDING_CANCEL = "PENDING_CANCEL"
    PENDING_MODIFY = "PENDING_MODIFY"


_S = OrderState
_DONE: Final = frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED})
_LIVE: Final = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED})
_ANSWERED: Final = _LIVE | _DONE | {_S.REJECTED}

LEGAL_MOVES: Final[dict[OrderState, frozenset[OrderState]]] = {
    _S.CREATED: frozenset({_S.DENIED, _S.QUEUED}),
    # A kill switch denies what waits, a deadline lets it expire, its owner takes it back: nobody else has seen it yet.
    _S.QUEUED: frozenset({_S.SENDING, _S.DENIED, _S.CANCELED, _S.EXPIRED}),
    _S.SENDING: _ANSWERED | {_S.UNKNOWN},
    # By reconciliation only. QUEUED: proved never to have arrived, and still wanted.
    _S.UNKNOWN: _ANSWERED | {_S.QUEUED},
    _S.ACCEPTED: _DONE | {_S.PARTIALLY_FILLED, _S.REJECTED, _S.PENDING_CANCEL, _S.PENDING_MODIFY},
    _S.PARTIALLY_FILLED: _DONE | {_S.PARTIALLY_FILLED, _S.PENDING_CANCEL, _S.PENDING_MODIFY},
    _S.PENDING_CANCEL: _LIVE | _DONE,
    _S.PENDING_MODIFY: _LIVE | _DONE | {_S.PENDING_CANCEL},
    # The venue filled it before it heard of the cancellation.
    _S.CANCELED: frozenset({_S.PARTIALLY_FILLED, _S.FILLED}),
    _S.FILLED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.DENIED: frozenset(),
}
assert set(LEGAL_MOVES) == set(OrderState), "every state has its moves"

TERMINAL: Final = frozenset({_S.DENIED, _S.FILLED, _S.REJECTED, _S.CANCELED, _S.EXPIRED})
WORKING: Final = frozenset(OrderState) - TERMINAL - {_S.CREATED}
"""What may still change a position, and so counts against limits."""


def may_move(old: OrderState, new: OrderState) -> bool:
    """Tell whether an order may go from `old` to `new`."""
    return new in LEGAL_MOVES[old]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as its owner asks for it. volume: in lots; prices: in the quote currency.

    price: of limit and stop-limit orders; stop_price: what triggers stop and stop-limit orders. expires_at_ms: of GTD
    alone. valid_for_ms: after this long it is not sent any more. reduce_only: may not open or turn a position.
    position: the one it closes, on a hedging account. magic: the number the venue keeps with it, its strategy's.
    """

    id: str
    tenant: str
    account: str
    symbol: str
    side: Side
    type: OrderType
    volume: Decimal
    time_in_force: TimeInForce = TimeInForce.GTC
    price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    expires_at_ms: int | None = None
    valid_for_ms: int | None = None
    reduce_only: bool = False
    position: str = ""
    client_order_id: str = ""
    strategy: str = ""
    magic: int = 0
    submitted_at_ms: int = 0

    @property
    def is_passive(self) -> bool:
        """Whether it waits at the venue for its price."""
        return self.type is not OrderType.MARKET
