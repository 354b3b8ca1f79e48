"""One account's orders beside what its venue shows of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

from core.model.ledger import Break, Holding, OrderEntry, Standing
from core.model.venues import TradingAccount, VenueOrder, VenuePosition, VenueView
from core.trading.hindsight import until_ms
from core.trading.strays import Strays


@dataclass(slots=True, kw_only=True)
class Comparison:
    """One account's orders beside its venue's. notional: of its positions; breaks: what was found to differ."""

    account: TradingAccount
    view: VenueView
    notional: Decimal | None
    now_ms: int
    known: Sequence[OrderEntry]
    strays: Strays
    breaks: list[Break] = field(default_factory=list)
    _working: dict[str, VenueOrder] = field(init=False)
    _ended: dict[str, VenueOrder] = field(init=False)
    _dealt: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._working, self._ended = _by_mark(self.view.orders), _by_mark(self.view.ended)
        self._dealt = {mark for deal in self.view.deals for mark in (deal.tag, deal.order)}
        self._dealt = (self._dealt | {position.tag for position in self.view.positions}) - {""}

    def reported(self, entry: OrderEntry) -> VenueOrder | None:
        """Return what the venue says of an order, by its tag or its ticket; what works before what has ended."""
        marks = (entry.order.id, entry.venue_order)
        return next(
            (where[mark] for where in (self._working, self._ended) for mark in marks if mark in where), None
        )

    def traded(self, entry: OrderEntry) -> bool:
        """Whether a deal or a position shows that the venue has had the order."""
        return not self._dealt.isdisjoint((entry.order.id, entry.venue_order))


def stood(standing: Standing, comparison: Comparison) -> Standing:
    """Return how an account stands by what its venue shows."""
    view, now_ms = comparison.view, comparison.now_ms
    today = datetime.fromtimestamp(now_ms / 1_000, UTC).date()
    new_day = standing.day != today
    equity = view.equity
    peaks = [value for value in (standing.peak_equity, equity) if value is not None]
    return replace(
        standing,
        balance=view.balance,
        equity=equity,
        margin=view.margin,
        margin_free=view.margin_free,
        notional=comparison.notional,
        day=today if equity is not None else standing.day,
        day_start_equity=equity if new_day and equity is not None else standing.day_start_equity,
        peak_equity=max(peaks) if peaks else None,
        deals_until_ms=until_ms(view.at_ms, now_ms),
        viewed_at_ms=now_ms,
        reconciled_at_ms=now_ms,
    )


def holding_at(account: str, position: VenuePosition) -> Holding:
    """Return a venue's position as the ledger keeps it."""
    return Holding(
        account=account,
        ticket=position.ticket,
        symbol=position.symbol,
        side=position.side,
        volume=position.volume,
        price_open=position.price_open,
        stop_loss=position.stop_loss,
        take_profit=position.take_profit,
        order=position.tag,
        opened_at_ms=position.at_ms,
    )


def _by_mark(orders: Sequence[VenueOrder]) -> dict[str, VenueOrder]:
    """Return orders by their tags and tickets, of which none is empty."""
    return {mark: one for one in reversed(orders) for mark in (one.tag, one.ticket) if mark}
