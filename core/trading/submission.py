"""An order comes in: it is judged under its account's lock and kept, queued or denied, with all that decided it.

One transaction holds the request's answer, the order, its first event, the audit and what is still to be done. Either
all of it is there, and the order will be sent, or none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from core.errors.exceptions import Invalid
from core.model.approvals import Approval
from core.model.audit import AuditEvent
from core.model.ledger import VIEW_AGE_MS_MAX, DeskFacts, Listing, OrderEntry, magic_of
from core.model.orders import Order, OrderState, Side
from core.model.risk import AccountFacts, Denial, Exposure, RiskFacts, RiskRules
from core.ports.access import Work
from core.ports.approvals import Approvals
from core.ports.audit import AuditTrail
from core.ports.orders import OrderDesk
from core.ports.risk import RiskBook
from core.trading.approving import approval_fields, held_against
from core.trading.market import Market, Quotes, market_of
from core.trading.risk import assess

NO_VENUE: Final = Denial(
    check=2, code="ACCOUNT_HAS_NO_VENUE", reason="nobody executes this account's orders", numbers={}
)
NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEntrance:
    """Takes orders in."""

    desk: OrderDesk
    risk: RiskBook
    audit: AuditTrail
    quotes: Quotes
    approvals: Approvals | None = None

    async def submit(
        self, work: Work, order: Order, *, actor: str, traceparent: str, approval: str = ""
    ) -> OrderEntry:
        """Judge an order and keep it, QUEUED or DENIED. approval: the one it names; looked at where one is needed.

        Raises: NotFound (code ACCOUNT_NOT_FOUND), Invalid (code POSITION_MISSING), Unavailable; nothing is kept then.
        """
        listing, market = await self.sight(work, order)
        account = listing.account
        if account is not None and account.hedging and order.reduce_only and not order.position:
            raise Invalid(
                "on a hedging account a reduce-only order names its position", code="POSITION_MISSING"
            )
        rules = await self.risk.rules(
            work, account=order.account, strategy=order.strategy, symbol=order.symbol
        )
        if account is None or not listing.reachable:
            denials: tuple[Denial, ...] = (NO_VENUE,)
            facts, approved = None, None
        else:
            known = await self.desk.facts(work, order, account, rules.limits.duplicate_window_ms)
            facts = risk_facts(order, listing, known, market, rules)
            approved = None
            if approval and rules.limits.approval_needed:
                approved, facts = await self._approved(work, order, facts, approval, actor)
            denials = assess(order, facts, rules.limits)
        entry = OrderEntry(
            order=replace(order, magic=magic_of(order.id)),
            state=OrderState.DENIED if denials else OrderState.QUEUED,
            version=1,
            denials=denials,
            limits_version=rules.limits.version,
            margin_needed=(account and market.margin(order, account.leverage)) or NOTHING,
            notional=market.notional(order) or NOTHING,
            submitted_by=actor,
            traceparent=traceparent,
        )
        entry = await self.desk.add(work, entry)
        await self.audit.append(work, submitted(entry, facts))
        if approved is not None and self.approvals is not None and not denials:
            used = await self.approvals.use(work, approved, order.id)
            await self.audit.append(work, approved_by(entry, used))
        return entry

    async def _approved(
        self, work: Work, order: Order, facts: RiskFacts, named: str, actor: str
    ) -> tuple[Approval | None, RiskFacts]:
        """Lock the approval an order names, so that no other uses it or has it revoked meanwhile."""
        found = None if self.approvals is None else await self.approvals.locked(work, named)
        return found, replace(facts, approval=held_against(order, found, named, actor))

    async def sight(self, work: Work, order: Order) -> tuple[Listing, Market]:
        """Return what an order is judged by that is not locked. Before anything is: Redis may be slow to tell quotes.

        Others trade on the account meanwhile, and a kill switch must not wait for it. Raises as `submit` does.
        """
        listing = await self.desk.listing(work, order.account, order.symbol)
        return listing, await market_of(order.symbol, listing, self.quotes)

    async def assess_again(
        self, work: Work, entry: OrderEntry, listing: Listing, market: Market
    ) -> tuple[Denial, ...]:
        """Judge a working order as it shall be from now on; what it had until now does not count against it."""
        order = entry.order
        rules = await self.risk.rules(
            work, account=order.account, strategy=order.strategy, symbol=order.symbol
        )
        if listing.account is None or not listing.reachable:
            return (NO_VENUE,)
        known = await self.desk.facts(work, order, listing.account, rules.limits.duplicate_window_ms)
        facts = risk_facts(order, listing, without(known, entry), market, rules)
        return assess(order, replace(facts, id_used=False, twins=0), rules.limits)


def without(known: DeskFacts, entry: OrderEntry) -> DeskFacts:
    """Return what is known as if the order were not there."""
    order = entry.order
    left = order.volume - entry.filled_volume
    held = known.notional_moving - entry.notional * left / order.volume
    named = _less(known.named, order.side, left) if order.position else known.named
    exposure = _less(known.exposure, order.side, left)
    return replace(known, exposure=exposure, named=named, notional_moving=held)


def _less(exposure: Exposure, side: Side, volume: Decimal) -> Exposure:
    if side is Side.BUY:
        return replace(exposure, working_buys=exposure.working_buys - volume)
    return replace(exposure, working_sells=exposure.working_sells - volume)


def risk_facts(
    order: Order, listing: Listing, known: DeskFacts, market: Market, rules: RiskRules
) -> RiskFacts:
    """Put together what a risk check is told. What the venue has not counted yet is counted here."""
    standing, account = known.standing, known.standing.account
    seen_ms = standing.viewed_at_ms
    free = None if standing.margin_free is None else standing.margin_free - known.margin_moving
    held = None if standing.notional is None else standing.notional + known.notional_moving
    return RiskFacts(
        at_ms=known.now_ms,
        state=rules.state,
        halts=rules.halts,
        reconciling=standing.reconciled_at_ms is None,
        account=AccountFacts(
            enabled=listing.account is not None,
            connected=seen_ms is not None and known.now_ms - seen_ms <= VIEW_AGE_MS_MAX,
            equity=standing.equity,
            margin_free=free,
            margin_needed=market.margin(order, account.leverage),
            day_start_equity=standing.day_start_equity,
            peak_equity=standing.peak_equity,
            consecutive_rejects=standing.consecutive_rejects,
        ),
        terms=market.terms,
        quote=market.quote,
        quote_rate=market.rate,
        exposure=known.exposure,
        reducible=known.named if account.hedging else None,
        notional=held,
        id_used=known.id_used,
        twins=known.twins,
        submits=known.submits,
    )


def submitted(entry: OrderEntry, facts: RiskFacts | None) -> AuditEvent:
    """Say for the audit what was asked, and what it was judged by."""
    order = entry.order
    return AuditEvent(
        type="order.denied" if entry.denials else "order.submitted",
        actor=entry.submitted_by,
        account=order.account,
        order=order.id,
        symbol=order.symbol,
        strategy=order.strategy,
        facts={
            "asked": asked(order),
            "limits_version": entry.limits_version,
            "judged_by": {} if facts is None else _numbers(facts),
            "denials": [
                {"code": d.code, "check": d.check, "numbers": dict(d.numbers)} for d in entry.denials
            ],
        },
        trace=entry.traceparent,
    )


def approved_by(entry: OrderEntry, approval: Approval) -> AuditEvent:
    """Say for the audit by whose leave an order is sent."""
    order = entry.order
    return AuditEvent(
        type="approval.used",
        actor=entry.submitted_by,
        account=order.account,
        order=order.id,
        symbol=order.symbol,
        strategy=order.strategy,
        facts=approval_fields(approval),
        trace=entry.traceparent,
    )


def asked(order: Order) -> dict[str, Any]:
    """Return an order's fields as plain values."""
    fields = {name: getattr(order, name) for name in Order.__dataclass_fields__}
    return {
        name: _plain(value) for name, value in fields.items() if name not in {"tenant", "submitted_at_ms"}
    }


def _numbers(facts: RiskFacts) -> dict[str, Any]:
    quote, exposure, account = facts.quote, facts.exposure, facts.account
    seen: Mapping[str, object] = {
        "at_ms": facts.at_ms,
        "state": facts.state,
        "bid": quote and quote.bid,
        "ask": quote and quote.ask,
        "quote_ms": quote and quote.time_ms,
        "rate": facts.quote_rate,
        "position": exposure and exposure.position,
        "working_buys": exposure and exposure.working_buys,
        "working_sells": exposure and exposure.working_sells,
        "notional": facts.notional,
        "equity": account and account.equity,
        "margin_free": account and account.margin_free,
        "margin_needed": account and account.margin_needed,
        "submits": facts.submits,
        "twins": facts.twins,
    }
    return {name: _plain(value) for name, value in seen.items()}


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
