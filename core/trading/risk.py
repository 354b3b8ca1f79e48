"""The risk checks: fourteen, cheap and fatal ones first, all of them always, each a pure function.

An order is sent only if none of them denies it, and every denial is told with the numbers it was decided by. What is
not known denies: a check that cannot be made has failed. Breaking more never denies less.
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Final

from core.model.orders import Order, Side, TimeInForce
from core.model.risk import Denial, Exposure, QuoteSeen, RiskFacts, RiskLimits, TradingState
from core.trading.approving import unapproved
from core.trading.stops import Reason, overdone

Check = Callable[[Order, RiskFacts, RiskLimits], Iterator[Reason]]


def assess(order: Order, facts: RiskFacts, limits: RiskLimits) -> tuple[Denial, ...]:
    """Return every reason not to send `order`, in the order of the checks; none lets it through."""
    return tuple(
        Denial(
            check=number,
            code=code,
            reason=reason,
            numbers={name: _text(value) for name, value in numbers.items()},
        )
        for number, check in enumerate(CHECKS, 1)
        for code, reason, numbers in check(order, facts, limits)
    )


def reduces(order: Order, facts: RiskFacts) -> bool:
    """Tell whether the order can only make a position smaller, whatever else is still working."""
    exposure = facts.exposure if facts.reducible is None else facts.reducible
    if exposure is None:
        return False
    working = exposure.working_buys if order.side is Side.BUY else exposure.working_sells
    opposite = exposure.position * order.side.sign < 0
    return opposite and order.volume + working <= abs(exposure.position)


def _system(order: Order, facts: RiskFacts, _limits: RiskLimits) -> Iterator[Reason]:
    if facts.state is TradingState.HALTED or facts.halts:
        scopes = ", ".join(facts.halts) or "everything"
        yield "TRADING_HALTED", f"trading is halted for {scopes}", {"state": facts.state, "halts": scopes}
    if facts.state is TradingState.REDUCING and not reduces(order, facts):
        yield (
            "REDUCING_ONLY",
            "only orders that make a position smaller are let through",
            {"state": facts.state},
        )
    if facts.reconciling:
        yield "RECONCILING", "what the venue holds is still being compared with what we know", {}
    if order.reduce_only and not reduces(order, facts):
        position = None if facts.exposure is None else facts.exposure.position
        yield "NOT_REDUCING", "a reduce-only order may not open or turn a position", {"position": position}


def _account(_order: Order, facts: RiskFacts, _limits: RiskLimits) -> Iterator[Reason]:
    if facts.account is None:
        yield "ACCOUNT_UNKNOWN", "nothing is known of the account", {}
        return
    if not facts.account.enabled:
        yield "ACCOUNT_DISABLED", "the account may not trade", {}
    if not facts.account.connected:
        yield "VENUE_DISCONNECTED", "the account's venue is not connected", {}


def _symbol(_order: Order, facts: RiskFacts, _limits: RiskLimits) -> Iterator[Reason]:
    if facts.terms is None:
        yield "SYMBOL_UNKNOWN", "the venue has no such symbol", {}
        return
    if not facts.terms.tradable:
        yield "SYMBOL_NOT_TRADABLE", "the venue does not let this symbol be traded", {}
    if not facts.terms.session_open:
        yield "SESSION_CLOSED", "the symbol's market is closed", {}


def _duplicate(order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    if facts.id_used:
        yield (
            "CLIENT_ORDER_ID_USED",
            "an order with this client order id is there already",
            {"id": order.client_order_id},
        )
    if facts.twins > 0:
        seen = {"like_it": facts.twins, "window_ms": limits.duplicate_window_ms}
        yield "DUPLICATE_ORDER", "the same order came a moment ago", seen


def _rate(_order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    if facts.submits >= limits.submits_per_minute_max:
        seen = {"submits": facts.submits, "max": limits.submits_per_minute_max}
        yield "SUBMIT_RATE", "too many orders within a minute", seen


def _volume(order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    volume = order.volume
    if volume > limits.volume_max:
        yield "VOLUME_LIMIT", "larger than one order may be", {"volume": volume, "max": limits.volume_max}
    terms = facts.terms
    if terms is None:
        yield "VOLUME_UNCHECKED", "the venue's volumes are not known", {"volume": volume}
        return
    if not terms.volume_min <= volume <= terms.volume_max:
        seen = {"volume": volume, "min": terms.volume_min, "max": terms.volume_max}
        yield "VOLUME_RANGE", "the venue takes no such volume", seen
    if volume % terms.volume_step:
        yield (
            "VOLUME_STEP",
            "the volume is no multiple of its step",
            {"volume": volume, "step": terms.volume_step},
        )
    if terms.volume_limit is not None:
        worst = abs((facts.exposure or Exposure()).worst(order.side, volume))
        if facts.exposure is None or worst > terms.volume_limit:
            yield (
                "VENUE_VOLUME_LIMIT",
                "beyond what the venue lets one hold",
                {"lots": worst, "max": terms.volume_limit},
            )


def _price(order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    step = facts.terms.tick_size if facts.terms else None
    for name in ("price", "stop_price", "stop_loss", "take_profit"):
        price: Decimal | None = getattr(order, name)
        if price is not None and (step is None or price <= 0 or price % step):
            yield "PRICE_STEP", f"{name} is no multiple of the tick size", {name: price, "tick_size": step}
    quote = facts.quote
    if quote is None:
        yield "NO_QUOTE", "there is no quote to hold the price against", {}
        return
    age_ms = facts.at_ms - quote.time_ms
    # One that is dated ahead of us would never grow old.
    if abs(age_ms) > limits.quote_age_ms_max:
        yield (
            "QUOTE_STALE",
            "the newest quote is too old, or dated ahead of us",
            {"age_ms": age_ms, "max_ms": limits.quote_age_ms_max},
        )
    for name in ("price", "stop_price"):
        price = getattr(order, name)
        market = _market(order.side, quote)
        if price is not None and abs(price - market) > limits.collar_share * market:
            seen = {name: price, "market": market, "share": limits.collar_share}
            yield "PRICE_COLLAR", f"{name} is too far from the market", seen


def _spread(_order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    quote = facts.quote
    if quote is None:
        yield "SPREAD_UNKNOWN", "there is no quote", {}
        return
    spread, middle = quote.ask - quote.bid, (quote.ask + quote.bid) / 2
    if quote.bid <= 0 or spread < 0 or spread > limits.spread_share_max * middle:
        seen = {"bid": quote.bid, "ask": quote.ask, "share_max": limits.spread_share_max}
        yield "SPREAD_TOO_WIDE", "bid and ask are too far apart", seen


def _stops(order: Order, facts: RiskFacts, _limits: RiskLimits) -> Iterator[Reason]:
    if order.stop_loss is None and order.take_profit is None:
        return
    if facts.terms is None or facts.quote is None:
        yield "STOPS_UNCHECKED", "the market the stops are held against is not known", {}
        return
    reference = order.price or order.stop_price or _market(order.side, facts.quote)
    distance = max(facts.terms.stops_level, facts.terms.freeze_level)
    sides = (
        ("stop_loss", order.stop_loss, -order.side.sign),
        ("take_profit", order.take_profit, order.side.sign),
    )
    for name, level, sign in sides:
        if level is None:
            continue
        seen = {name: level, "reference": reference, "distance": distance}
        if (level - reference) * sign <= 0:
            yield "STOP_SIDE", f"{name} is on the wrong side of the price", seen
        elif abs(level - reference) < distance:
            yield "STOP_TOO_CLOSE", f"{name} is closer than the venue allows", seen


def _filling(order: Order, facts: RiskFacts, _limits: RiskLimits) -> Iterator[Reason]:
    if facts.terms is None:
        yield "FILLING_UNCHECKED", "what the venue takes is not known", {}
    else:
        if order.type not in facts.terms.types:
            yield "ORDER_TYPE", "the venue takes no orders of this type", {"type": order.type}
        if order.time_in_force not in facts.terms.times_in_force:
            yield "TIME_IN_FORCE", "the venue does not know this time in force", {"time": order.time_in_force}
    ends_ms = order.expires_at_ms
    if (order.time_in_force is TimeInForce.GTD) != (ends_ms is not None) or (
        ends_ms is not None and ends_ms <= facts.at_ms
    ):
        yield "EXPIRATION", "a GTD order ends in the future, any other has no end", {"expires_at_ms": ends_ms}


def _size(order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    if facts.exposure is None or facts.terms is None or facts.quote is None or facts.quote_rate is None:
        yield "EXPOSURE_UNKNOWN", "what the account holds, or what it is worth, is not known", {}
        return
    worst = abs(facts.exposure.worst(order.side, order.volume))
    if worst > limits.position_max and not reduces(order, facts):
        yield (
            "POSITION_LIMIT",
            "the position could become too large",
            {"lots": worst, "max": limits.position_max},
        )
    price = order.price or order.stop_price or _market(order.side, facts.quote)
    notional = order.volume * facts.terms.contract_size * price * facts.quote_rate
    if notional > limits.notional_max:
        yield (
            "NOTIONAL_LIMIT",
            "worth more than one order may be",
            {"notional": notional, "max": limits.notional_max},
        )
    if reduces(order, facts):
        return
    if facts.notional is None or facts.notional + notional > limits.account_notional_max:
        seen = {"held": facts.notional, "notional": notional, "max": limits.account_notional_max}
        yield "ACCOUNT_NOTIONAL_LIMIT", "the account would hold too much", seen


def _margin(order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    if reduces(order, facts):
        return
    account = facts.account
    if account is None or account.margin_free is None or account.margin_needed is None:
        yield "MARGIN_UNKNOWN", "free or needed margin is not known", {}
    elif account.margin_needed > account.margin_free * limits.margin_share_max:
        seen = {
            "needed": account.margin_needed,
            "free": account.margin_free,
            "share_max": limits.margin_share_max,
        }
        yield "MARGIN_INSUFFICIENT", "the order needs too much of the free margin", seen


def _losses(order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    account = facts.account
    if (
        account is None
        or account.equity is None
        or account.day_start_equity is None
        or account.peak_equity is None
    ):
        yield "EQUITY_UNKNOWN", "how the account has fared is not known", {}
        return
    rejects = account.consecutive_rejects
    if rejects >= limits.consecutive_rejects_max:
        seen: Mapping[str, object] = {"rejects": rejects, "max": limits.consecutive_rejects_max}
        yield "TOO_MANY_REJECTS", "the venue has refused too many in a row", seen
    if reduces(order, facts):
        return
    yield from overdone(account.equity, account.day_start_equity, account.peak_equity, limits)


def _restricted(order: Order, facts: RiskFacts, limits: RiskLimits) -> Iterator[Reason]:
    listed = limits.symbols is None or order.symbol in limits.symbols
    if order.symbol in limits.restricted or not listed:
        yield "SYMBOL_RESTRICTED", "this symbol may not be traded here", {"symbol": order.symbol}
    if limits.approval_needed:
        yield from unapproved(facts)


CHECKS: Final[tuple[Check, ...]] = (
    _system,
    _account,
    _symbol,
    _duplicate,
    _rate,
    _volume,
    _price,
    _spread,
    _stops,
    _filling,
    _size,
    _margin,
    _losses,
    _restricted,
)


def _market(side: Side, quote: QuoteSeen) -> Decimal:
    return quote.ask if side is Side.BUY else quote.bid


def _text(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else "unknown" if value is None else str(value)
