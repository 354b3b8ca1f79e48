"""When losses halt an account: exactly at a limit is allowed, beyond it is not, and only an ACTIVE one is halted."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.orders import Order, OrderType, Side
from core.model.risk import AccountFacts, RiskFacts, RiskLimits, TradingState
from core.trading.risk import assess
from core.trading.stops import stop_for

D = Decimal
LIMITS = RiskLimits(daily_loss_max=D(1_000), drawdown_share_max=D("0.2"))
ACCOUNT = AccountFacts(
    enabled=True, connected=True, equity=D(10_000), day_start_equity=D(10_000), peak_equity=D(10_000)
)
ACTIVE, REDUCING, HALTED = TradingState.ACTIVE, TradingState.REDUCING, TradingState.HALTED


def test_without_losses_nothing_follows() -> None:
    assert stop_for(ACTIVE, ACCOUNT, LIMITS) is None


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"equity": D(9_000)}, ()),
        ({"equity": D("8999.99")}, ("DAILY_LOSS",)),
        ({"equity": D(8_000), "day_start_equity": D(8_000)}, ()),
        ({"equity": D("7999.99"), "day_start_equity": D(8_000)}, ("DRAWDOWN",)),
        ({"equity": D(7_000)}, ("DAILY_LOSS", "DRAWDOWN")),
    ],
)
def test_beyond_a_limit_halts_and_exactly_at_it_does_not(
    changes: dict[str, Decimal], codes: tuple[str, ...]
) -> None:
    stop = stop_for(ACTIVE, replace(ACCOUNT, **changes), LIMITS)
    assert (stop.codes if stop else ()) == codes
    assert stop is None or stop.state is HALTED


def test_the_reason_tells_the_numbers() -> None:
    stop = stop_for(ACTIVE, replace(ACCOUNT, equity=D(8_500)), LIMITS)
    assert stop is not None
    assert stop.reason == "the account has lost too much today (loss 1500, max 1000)"


@pytest.mark.parametrize("state", [REDUCING, HALTED])
def test_what_a_person_has_set_stays(state: TradingState) -> None:
    assert stop_for(state, replace(ACCOUNT, equity=D(0)), LIMITS) is None


@pytest.mark.parametrize("unknown", ["equity", "day_start_equity", "peak_equity"])
def test_what_is_not_known_for_a_moment_halts_nothing_for_good(unknown: str) -> None:
    account = replace(ACCOUNT, equity=D(0))
    assert stop_for(ACTIVE, replace(account, **{unknown: None}), LIMITS) is None


MONEY = st.decimals(min_value=-10_000, max_value=100_000, places=2)


@given(MONEY, MONEY, MONEY)
def test_an_account_is_halted_for_just_what_its_orders_are_denied_for(
    equity: Decimal, day_start: Decimal, peak: Decimal
) -> None:
    account = replace(ACCOUNT, equity=equity, day_start_equity=day_start, peak_equity=peak)
    order = Order(
        id="01J", tenant="t", account="a", symbol="S", side=Side.BUY, type=OrderType.MARKET, volume=D(1)
    )
    denied = assess(order, RiskFacts(at_ms=1, state=ACTIVE, account=account), LIMITS)
    losses = tuple(denial.code for denial in denied if denial.code in {"DAILY_LOSS", "DRAWDOWN"})
    stop = stop_for(ACTIVE, account, LIMITS)
    assert (stop.codes if stop else ()) == losses
