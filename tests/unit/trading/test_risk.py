"""The fourteen risk checks: each denial by name, all of them at once, and breaking more never denies less."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.orders import Order, OrderType, Side, TimeInForce
from core.model.risk import (
    AccountFacts,
    ApprovalSeen,
    Exposure,
    InstrumentTerms,
    QuoteSeen,
    RiskFacts,
    RiskLimits,
    TradingState,
)
from core.trading.risk import CHECKS, assess

D = Decimal
NOW_MS = 1_790_000_000_000
TERMS = InstrumentTerms(
    tradable=True,
    session_open=True,
    tick_size=D("0.00001"),
    contract_size=D(100_000),
    volume_min=D("0.01"),
    volume_max=D(500),
    volume_step=D("0.01"),
    volume_limit=D(1_000),
    stops_level=D("0.00010"),
    freeze_level=D("0.00005"),
)
ACCOUNT = AccountFacts(
    enabled=True,
    connected=True,
    equity=D(100_000),
    margin_free=D(90_000),
    margin_needed=D(1_000),
    day_start_equity=D(100_500),
    peak_equity=D(101_000),
)
FACTS = RiskFacts(
    at_ms=NOW_MS,
    state=TradingState.ACTIVE,
    account=ACCOUNT,
    terms=TERMS,
    quote=QuoteSeen(bid=D("1.10000"), ask=D("1.10010"), time_ms=NOW_MS - 100),
    quote_rate=D("0.9"),
    exposure=Exposure(),
    notional=D(0),
)
LIMITS = RiskLimits()
ORDER = Order(
    id="01J",
    tenant="demo",
    account="main",
    symbol="EURUSD",
    side=Side.BUY,
    type=OrderType.MARKET,
    volume=D(1),
)

Case = tuple[Order, RiskFacts, RiskLimits]


def order(**changes: Any) -> Case:
    return replace(ORDER, **changes), FACTS, LIMITS


def facts(**changes: Any) -> Case:
    return ORDER, replace(FACTS, **changes), LIMITS


def account(**changes: Any) -> Case:
    return facts(account=replace(ACCOUNT, **changes))


def terms(**changes: Any) -> Case:
    return facts(terms=replace(TERMS, **changes))


def limits(**changes: Any) -> Case:
    return ORDER, FACTS, replace(LIMITS, **changes)


def approval(**changes: Any) -> Case:
    """Return an order that needs an approval and names one."""
    seen = replace(ApprovalSeen(id="a", known=True, expires_at_ms=NOW_MS), **changes)
    return ORDER, replace(FACTS, approval=seen), replace(LIMITS, approval_needed=True)


ALONE: dict[str, tuple[int, Case]] = {
    # code -> its check, and what alone brings it about
    "TRADING_HALTED": (1, facts(state=TradingState.HALTED)),
    "REDUCING_ONLY": (1, facts(state=TradingState.REDUCING)),
    "RECONCILING": (1, facts(reconciling=True)),
    "NOT_REDUCING": (1, order(reduce_only=True)),
    "ACCOUNT_DISABLED": (2, account(enabled=False)),
    "VENUE_DISCONNECTED": (2, account(connected=False)),
    "SYMBOL_NOT_TRADABLE": (3, terms(tradable=False)),
    "SESSION_CLOSED": (3, terms(session_open=False)),
    "CLIENT_ORDER_ID_USED": (4, facts(id_used=True)),
    "DUPLICATE_ORDER": (4, facts(twins=1)),
    "SUBMIT_RATE": (5, facts(submits=60)),
    "VOLUME_LIMIT": (6, limits(volume_max=D("0.99"))),
    "VOLUME_RANGE": (6, terms(volume_max=D("0.5"))),
    "VOLUME_STEP": (6, terms(volume_step=D("0.3"))),
    "VENUE_VOLUME_LIMIT": (6, terms(volume_limit=D("0.5"))),
    "PRICE_STEP": (7, order(type=OrderType.LIMIT, price=D("1.100005"))),
    "QUOTE_STALE": (7, facts(at_ms=NOW_MS + 10_000)),
    "PRICE_COLLAR": (7, order(type=OrderType.LIMIT, price=D("1.2"))),
    "SPREAD_TOO_WIDE": (8, limits(spread_share_max=D("0.00001"))),
    "STOP_SIDE": (9, order(stop_loss=D("1.2"))),
    "STOP_TOO_CLOSE": (9, order(stop_loss=D("1.10005"))),
    "ORDER_TYPE": (10, terms(types=frozenset({OrderType.LIMIT}))),
    "TIME_IN_FORCE": (10, terms(times_in_force=frozenset({TimeInForce.FOK}))),
    "EXPIRATION": (10, order(time_in_force=TimeInForce.GTD)),
    "POSITION_LIMIT": (11, limits(position_max=D("0.99"))),
    "NOTIONAL_LIMIT": (11, limits(notional_max=D(90_000))),
    "ACCOUNT_NOTIONAL_LIMIT": (11, facts(notional=D(4_950_000))),
    "MARGIN_INSUFFICIENT": (12, account(margin_free=D(1_200))),
    "MARGIN_UNKNOWN": (12, account(margin_needed=None)),
    "TOO_MANY_REJECTS": (13, account(consecutive_rejects=5)),
    "DAILY_LOSS": (13, account(day_start_equity=D(120_000))),
    "DRAWDOWN": (13, account(peak_equity=D(130_000))),
    "EQUITY_UNKNOWN": (13, account(peak_equity=None)),
    "SYMBOL_RESTRICTED": (14, limits(restricted=frozenset({"EURUSD"}))),
    "APPROVAL_NEEDED": (14, limits(approval_needed=True)),
    "APPROVAL_UNKNOWN": (14, approval(known=False)),
    "APPROVAL_USED": (14, approval(used_by="01K")),
    "APPROVAL_REVOKED": (14, approval(revoked_by="client:b")),
    "APPROVAL_EXPIRED": (14, approval(expires_at_ms=NOW_MS - 1)),
    "APPROVAL_MISMATCH": (14, approval(unlike=("volume",))),
    "APPROVAL_OWN": (14, approval(own=True)),
}
UNKNOWN: dict[str, tuple[Case, set[int]]] = {
    # what is not known -> the checks that fail with it
    "account": (facts(account=None), {2, 12, 13}),
    "terms": (facts(terms=None), {3, 6, 10, 11}),
    "quote": (facts(quote=None), {7, 8, 11}),
    "exposure": (facts(exposure=None), {6, 11}),
    "quote rate": (facts(quote_rate=None), {11}),
    "notional": (facts(notional=None), {11}),
}


def codes(case: Case) -> list[str]:
    return [denial.code for denial in assess(*case)]


def test_an_order_within_every_limit_is_let_through() -> None:
    assert assess(ORDER, FACTS, LIMITS) == ()


def test_there_are_fourteen() -> None:
    assert len(CHECKS) == 14


@pytest.mark.parametrize("code", ALONE)
def test_what_breaks_one_rule_is_denied_for_that_alone(code: str) -> None:
    check, case = ALONE[code]
    assert [(denial.check, denial.code) for denial in assess(*case)] == [(check, code)]


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_not_known_denies(what: str) -> None:
    case, checks = UNKNOWN[what]
    assert {denial.check for denial in assess(*case)} == checks


def test_every_halt_is_named() -> None:
    (denial,) = assess(*facts(halts=("tenant demo", "strategy grid")))
    assert (denial.code, denial.numbers["halts"]) == ("TRADING_HALTED", "tenant demo, strategy grid")


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (facts(submits=59), "SUBMIT_RATE"),
        (limits(volume_max=D(1)), "VOLUME_LIMIT"),
        (terms(volume_min=D(1)), "VOLUME_RANGE"),
        (terms(volume_max=D(1)), "VOLUME_RANGE"),
        (terms(volume_limit=D(1)), "VENUE_VOLUME_LIMIT"),
        (facts(at_ms=NOW_MS + 4_900), "QUOTE_STALE"),
        (limits(position_max=D(1)), "POSITION_LIMIT"),
        (limits(notional_max=D("99009.0")), "NOTIONAL_LIMIT"),
        (account(margin_free=D(1_250)), "MARGIN_INSUFFICIENT"),
        (account(day_start_equity=D(110_000)), "DAILY_LOSS"),
        (account(peak_equity=D(125_000)), "DRAWDOWN"),
        (account(consecutive_rejects=4), "TOO_MANY_REJECTS"),
        (order(type=OrderType.LIMIT, price=D("1.12210")), "PRICE_COLLAR"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_exactly_at_the_limit_is_allowed(case: Case, code: str) -> None:
    assert code not in codes(case)


def test_what_makes_a_position_smaller_passes_where_only_that_may() -> None:
    held = replace(
        FACTS,
        state=TradingState.REDUCING,
        exposure=Exposure(position=D(-2)),
        account=replace(ACCOUNT, margin_free=D(0), day_start_equity=D(200_000), peak_equity=D(200_000)),
        notional=D(9_000_000),
    )
    assert codes((replace(ORDER, reduce_only=True), held, LIMITS)) == []


def test_orders_at_work_count_against_what_is_left_to_reduce() -> None:
    held = replace(FACTS, exposure=Exposure(position=D(-2), working_buys=D("1.5")))
    assert codes((replace(ORDER, reduce_only=True), held, LIMITS)) == ["NOT_REDUCING"]


@pytest.mark.parametrize(
    ("named", "passes"),
    [
        (Exposure(position=D(-2)), True),
        (Exposure(position=D(-2), working_buys=D("1.5")), False),
        (Exposure(), False),
        (Exposure(position=D(2)), False),
    ],
    ids=["it is there", "another closes it already", "it names none", "it would grow"],
)
def test_on_a_hedging_account_only_the_position_an_order_names_is_made_smaller(
    named: Exposure, passes: bool
) -> None:
    """The other way round without one, an order opens a position beside those there are."""
    held = replace(FACTS, exposure=Exposure(position=D(-9)), reducible=named, notional=D(9_000_000))
    denied = codes((ORDER, held, LIMITS))
    assert denied == ([] if passes else ["ACCOUNT_NOTIONAL_LIMIT"])
    reducing = replace(held, state=TradingState.REDUCING, notional=D(0))
    assert codes((ORDER, reducing, LIMITS)) == ([] if passes else ["REDUCING_ONLY"])


def test_one_leg_of_a_flat_pair_may_be_closed() -> None:
    pair = replace(
        FACTS, state=TradingState.REDUCING, exposure=Exposure(), reducible=Exposure(position=D(-2))
    )
    assert codes((replace(ORDER, reduce_only=True), pair, LIMITS)) == []


def test_a_quote_dated_ahead_of_us_is_none_of_now() -> None:
    assert codes(facts(at_ms=FACTS.quote.time_ms - 5_001)) == ["QUOTE_STALE"]
    assert codes(facts(at_ms=FACTS.quote.time_ms - 5_000)) == []


def test_a_denial_tells_the_numbers_it_was_decided_by() -> None:
    (denial,) = assess(*limits(volume_max=D("0.50")))
    assert denial.numbers == {"volume": "1", "max": "0.50"}


Break = Callable[[Case], Case]


def _broken(what: str, **changes: Any) -> Break:
    def apply(case: Case) -> Case:
        parts = dict(zip(("order", "facts", "limits"), case, strict=True))
        if what in ("account", "terms"):
            whole = getattr(parts["facts"], what)
            changed = replace(whole, **changes) if whole is not None else None
            parts["facts"] = replace(parts["facts"], **{what: changed})
        else:
            parts[what] = replace(parts[what], **changes)
        return parts["order"], parts["facts"], parts["limits"]

    return apply


BREAKS: tuple[Break, ...] = (
    *(
        _broken("facts", **changes)
        for changes in (
            {"state": TradingState.HALTED},
            {"halts": ("global",)},
            {"reconciling": True},
            {"account": None},
            {"terms": None},
            {"quote": None},
            {"exposure": None},
            {"notional": None},
            {"quote_rate": None},
            {"id_used": True},
            {"twins": 3},
            {"submits": 1_000},
            {"at_ms": NOW_MS + 60_000},
        )
    ),
    *(
        _broken("account", **changes)
        for changes in (
            {"enabled": False},
            {"connected": False},
            {"margin_free": D(0)},
            {"margin_needed": None},
            # Not an equity: a known one would mend what an unknown one denies.
            {"day_start_equity": D(1_000_000)},
            {"equity": None},
            {"consecutive_rejects": 99},
        )
    ),
    *(
        _broken("terms", **changes)
        for changes in (
            {"tradable": False},
            {"session_open": False},
            {"volume_max": D("0.01")},
            {"volume_limit": D(0)},
            {"types": frozenset()},
            {"times_in_force": frozenset()},
        )
    ),
    *(
        _broken("limits", **changes)
        for changes in (
            {"volume_max": D(0)},
            {"notional_max": D(0)},
            {"account_notional_max": D(-1)},
            {"position_max": D(0)},
            {"collar_share": D(0)},
            {"quote_age_ms_max": -1},
            {"spread_share_max": D(0)},
            {"margin_share_max": D(0)},
            {"daily_loss_max": D(-1_000_000)},
            {"restricted": frozenset({"EURUSD"})},
            {"symbols": frozenset()},
            {"approval_needed": True},
        )
    ),
)
ORDERS = st.builds(
    replace,
    st.just(ORDER),
    side=st.sampled_from(Side),
    type=st.sampled_from(OrderType),
    volume=st.sampled_from([D("0.01"), D(1), D(3), D(20)]),
    price=st.sampled_from([None, D("1.1"), D("1.09"), D("1.3")]),
    stop_loss=st.sampled_from([None, D("1.09"), D("1.2")]),
    reduce_only=st.booleans(),
)
HELD = st.builds(
    Exposure,
    position=st.sampled_from([D(0), D(-3), D(3), D(60)]),
    working_buys=st.sampled_from([D(0), D(2)]),
    working_sells=st.sampled_from([D(0), D(2)]),
)


@given(
    asked=ORDERS,
    held=HELD,
    breaks=st.lists(st.sampled_from(BREAKS), max_size=4),
    more=st.sampled_from(BREAKS),
)
def test_breaking_more_never_denies_less(
    asked: Order, held: Exposure, breaks: list[Break], more: Break
) -> None:
    case: Case = (asked, replace(FACTS, exposure=held), LIMITS)
    for one in breaks:
        case = one(case)
    before = {denial.check for denial in assess(*case)}
    after = {denial.check for denial in assess(*more(case))}
    assert before <= after


@given(asked=ORDERS, held=HELD)
def test_the_same_is_always_judged_the_same(asked: Order, held: Exposure) -> None:
    case = (asked, replace(FACTS, exposure=held), LIMITS)
    assert assess(*case) == assess(*case)


def test_an_approval_lets_through_what_needs_one_until_its_last_moment() -> None:
    assert codes(approval()) == []


def test_an_approval_excuses_nothing_else() -> None:
    asked, seen, allowed = approval()
    assert codes((asked, replace(seen, twins=1), allowed)) == ["DUPLICATE_ORDER"]
