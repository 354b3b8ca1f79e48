"""Currencies: a pair is found either way round, and what nobody quotes has no rate."""

from decimal import Decimal

import pytest

from core.model.records import Instrument
from core.model.risk import QuoteSeen
from core.trading.rates import rate_between


def pair(base: str, profit: str) -> Instrument:
    return Instrument(
        symbol=base + profit,
        base_currency=base,
        profit_currency=profit,
        margin_currency=base,
        digits=5,
        tick_size="0.00001",
        contract_size="100000",
        volume_min="0.01",
        volume_max="100",
        volume_step="0.01",
    )


PAIRS = [pair("EUR", "USD"), pair("USD", "JPY")]
QUOTES = {
    "EURUSD": QuoteSeen(bid=Decimal("1.09"), ask=Decimal("1.11"), time_ms=0),
    "USDJPY": QuoteSeen(bid=Decimal(150), ask=Decimal(150), time_ms=0),
}


@pytest.mark.parametrize(
    ("origin", "target", "rate"),
    [
        ("USD", "USD", Decimal(1)),
        ("EUR", "USD", Decimal("1.10")),
        ("USD", "EUR", 1 / Decimal("1.10")),
        ("JPY", "USD", 1 / Decimal(150)),
        ("JPY", "EUR", None),
        ("GBP", "USD", None),
    ],
)
def test_a_currency_is_worth_what_its_pair_says(origin: str, target: str, rate: Decimal | None) -> None:
    assert rate_between(origin, target, PAIRS, QUOTES) == rate


def test_a_pair_nobody_quotes_tells_nothing() -> None:
    dead = {"EURUSD": QuoteSeen(bid=Decimal(0), ask=Decimal(0), time_ms=0)}
    assert rate_between("EUR", "USD", PAIRS, dead) is None
