"""What the terminal says of orders, positions and deals, as the house says it. Pure.

A tag is found by the comment; where a broker has rewritten that, by the ticket our request was answered with; else by
the magic number, if it, side and symbol leave only one order of ours.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from bridge.connector.terminal import AccountInfo
from bridge.connector.trades import BY_VENUE, MadeDeal, OpenPosition, PlacedOrder, PlacedState, TradeType
from core.model.orders import OrderState, OrderType, Side
from core.model.venues import Deal, VenueOrder, VenuePosition, VenueView

TAG: Final = re.compile(r"[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}")
"""A ULID; other people's comments are no tags."""
PLACES_MAX: Final = 10
"""Decimal places of what the terminal has computed; further ones are the float's own."""
SAME_TIME_MS: Final = 300_000
"""A magic number may be a strategy's: it names an order only near the time at which that was sent."""

_S = OrderState
_ENDED: Final[Mapping[int, OrderState]] = {
    # Partly filled and over: the rest was cancelled.
    PlacedState.PARTIAL: _S.CANCELED,
    PlacedState.CANCELED: _S.CANCELED,
    PlacedState.FILLED: _S.FILLED,
    PlacedState.REJECTED: _S.REJECTED,
    PlacedState.EXPIRED: _S.EXPIRED,
}
_TYPES: Final[Mapping[int, OrderType]] = {
    TradeType.BUY: OrderType.MARKET,
    TradeType.SELL: OrderType.MARKET,
    TradeType.BUY_LIMIT: OrderType.LIMIT,
    TradeType.SELL_LIMIT: OrderType.LIMIT,
    TradeType.BUY_STOP: OrderType.STOP,
    TradeType.SELL_STOP: OrderType.STOP,
    TradeType.BUY_STOP_LIMIT: OrderType.STOP_LIMIT,
    TradeType.SELL_STOP_LIMIT: OrderType.STOP_LIMIT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An order we have sent. ticket: what the terminal answered, 0 while it has not; at_ms: UTC."""

    tag: str
    magic: int
    symbol: str
    side: Side
    at_ms: int
    ticket: int = 0


@dataclass(slots=True)
class Tags:
    """Whose orders are whose."""

    _by_ticket: dict[int, str] = field(default_factory=dict)
    _by_magic: dict[int, dict[str, Sent]] = field(default_factory=dict)

    def note(self, sent: Sent) -> None:
        """Remember an order of ours."""
        if sent.ticket:
            self._by_ticket[sent.ticket] = sent.tag
        self._by_magic.setdefault(sent.magic, {})[sent.tag] = sent

    def forget(self, tags: Iterable[str]) -> None:
        """Drop what is too old to be asked about."""
        gone = frozenset(tags)
        self._by_ticket = {ticket: tag for ticket, tag in self._by_ticket.items() if tag not in gone}
        for magic, sent in list(self._by_magic.items()):
            kept = {tag: one for tag, one in sent.items() if tag not in gone}
            if kept:
                self._by_magic[magic] = kept
            else:
                del self._by_magic[magic]

    def of(
        self, *, comment: str, ticket: int, magic: int, reason: int, symbol: str, side: Side, at_ms: int
    ) -> str:
        """Return the tag, "" where it is nobody's we know. at_ms: UTC."""
        if reason in BY_VENUE:
            # A stop it hit: no order of ours is behind it, whatever it took over from the position.
            return ""
        if TAG.fullmatch(comment):
            return comment
        known = self._by_ticket.get(ticket)
        if known is not None:
            return known
        if not magic:
            return ""
        near = [
            sent.tag
            for sent in self._by_magic.get(magic, {}).values()
            if sent.symbol == symbol
            and sent.side is side
            and not (sent.ticket and ticket)
            and abs(sent.at_ms - at_ms) <= SAME_TIME_MS
        ]
        return near[0] if len(near) == 1 else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """How one terminal's answers are read. utc_offset_s: of its clock."""

    tags: Tags
    utc_offset_s: int

    def order(self, placed: PlacedOrder, *, working: bool) -> VenueOrder | None:
        """Return an order; None for sorts that are none of ours, such as closing by an opposite position."""
        if placed.type not in _TYPES:
            return None
        kind, side = _TYPES[placed.type], _side(placed.type)
        stop_limit = kind is OrderType.STOP_LIMIT
        limit = placed.price_stoplimit if stop_limit else placed.price_open
        at_ms = self._utc_ms(placed.time_setup_msc if working else placed.time_done_msc)
        return VenueOrder(
            ticket=str(placed.ticket),
            tag=self.tags.of(
                comment=placed.comment,
                ticket=placed.ticket,
                magic=placed.magic,
                reason=placed.reason,
                symbol=placed.symbol,
                side=side,
                at_ms=self._utc_ms(placed.time_setup_msc),
            ),
            symbol=placed.symbol,
            side=side,
            type=kind,
            state=_state(placed, working=working),
            volume=number(placed.volume_initial),
            volume_left=number(placed.volume_current),
            price=_level(limit) if stop_limit or kind is OrderType.LIMIT else None,
            stop_price=_level(placed.price_open) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None,
            stop_loss=_level(placed.sl),
            take_profit=_level(placed.tp),
            at_ms=at_ms,
        )

    def deal(self, made: MadeDeal) -> Deal | None:
        """Return a trade; None for bookings."""
        if made.type not in (TradeType.BUY, TradeType.SELL):
            return None
        side, at_ms = _side(made.type), self._utc_ms(made.time_msc)
        return Deal(
            ticket=str(made.ticket),
            tag=self.tags.of(
                comment=made.comment,
                ticket=made.order,
                magic=made.magic,
                reason=made.reason,
                symbol=made.symbol,
                side=side,
                at_ms=at_ms,
            ),
            order=str(made.order),
            position=str(made.position_id),
            symbol=made.symbol,
            side=side,
            volume=number(made.volume),
            price=number(made.price),
            profit=number(made.profit),
            commission=number(made.commission + made.fee),
            at_ms=at_ms,
        )

    def position(self, held: OpenPosition) -> VenuePosition:
        side, at_ms = _side(held.type), self._utc_ms(held.time_msc)
        return VenuePosition(
            ticket=str(held.ticket),
            tag=self.tags.of(
                comment=held.comment,
                ticket=held.identifier,
                magic=held.magic,
                reason=held.reason,
                symbol=held.symbol,
                side=side,
                at_ms=at_ms,
            ),
            symbol=held.symbol,
            side=side,
            volume=number(held.volume),
            price_open=number(held.price_open),
            stop_loss=_level(held.sl),
            take_profit=_level(held.tp),
            at_ms=at_ms,
        )

    def view(
        self,
        account: AccountInfo,
        *,
        orders: Iterable[PlacedOrder],
        ended: Iterable[PlacedOrder],
        deals: Iterable[MadeDeal],
        positions: Iterable[OpenPosition],
        at_ms: int,
    ) -> VenueView:
        made = sorted(deals, key=lambda one: (one.time_msc, one.ticket))
        return VenueView(
            at_ms=at_ms,
            balance=number(account.balance),
            equity=number(account.equity),
            margin=number(account.margin),
            margin_free=number(account.margin_free),
            orders=tuple(seen for one in orders if (seen := self.order(one, working=True))),
            ended=tuple(seen for one in ended if (seen := self.order(one, working=False))),
            deals=tuple(deal for one in made if (deal := self.deal(one))),
            positions=tuple(self.position(one) for one in positions),
        )

    def _utc_ms(self, server_ms: int) -> int:
        return server_ms - self.utc_offset_s * 1_000


def _state(placed: PlacedOrder, *, working: bool) -> OrderState:
    if not working:
        # Of an ended order anything else makes no sense, and is not guessed at.
        return _ENDED.get(placed.state, _S.UNKNOWN)
    partly = placed.state == PlacedState.PARTIAL or placed.volume_current < placed.volume_initial
    return _S.PARTIALLY_FILLED if partly else _S.ACCEPTED


def _side(kind: int) -> Side:
    return Side.SELL if kind % 2 else Side.BUY


def _level(price: float) -> Decimal | None:
    return number(price) if price else None


def number(value: float) -> Decimal:
    """Return the decimal number that a float of the terminal's stands for."""
    return Decimal(f"{round(value, PLACES_MAX):.{PLACES_MAX}f}").normalize() + 0
