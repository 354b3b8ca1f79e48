"""Limits of several scopes as one: the tenant's replace the defaults, and every scope more allows less or the same."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.risk import LimitScope, LimitSet, RiskLimits
from core.trading.limits import STRICTER, merged, read

D = Decimal
NARROW = [LimitScope.ACCOUNT, LimitScope.STRATEGY, LimitScope.SYMBOL]
NAMES = st.lists(st.sampled_from(["EURUSD", "USDJPY", "XAUUSD"]), unique=True)
AMOUNT = st.decimals(min_value=0, max_value=1_000, places=2).map(str)
COUNT = st.integers(min_value=0, max_value=1_000)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "restricted": NAMES,
    "symbols": st.none() | NAMES,
    "approval_needed": st.booleans(),
} | {
    name: AMOUNT if isinstance(getattr(RiskLimits(), name), Decimal) else COUNT
    for name in STRICTER
    if name not in {"restricted", "symbols", "approval_needed"}
}
LIMITS = st.fixed_dictionaries({}, optional=VALUES)


def limit_set(limits: dict[str, Any], scope: LimitScope = LimitScope.ACCOUNT, version: int = 1) -> LimitSet:
    return LimitSet(scope=scope, target="x", version=version, limits=limits, author="a", set_at_ms=1)


SETS = st.builds(limit_set, LIMITS, st.sampled_from(LimitScope), COUNT)


def allows_no_more(mine: RiskLimits, than: RiskLimits) -> bool:
    """Whether nothing is let through by `mine` that is not by `than`."""
    larger_is_stricter = mine.duplicate_window_ms >= than.duplicate_window_ms
    amounts = all(
        getattr(mine, name) <= getattr(than, name)
        for name in STRICTER
        if name not in {"duplicate_window_ms", "restricted", "symbols", "approval_needed"}
    )
    symbols = than.symbols is None or (mine.symbols is not None and mine.symbols <= than.symbols)
    approval = mine.approval_needed or not than.approval_needed
    return larger_is_stricter and amounts and mine.restricted >= than.restricted and symbols and approval


@given(st.lists(SETS, max_size=5), st.builds(limit_set, LIMITS, st.sampled_from(NARROW)))
def test_a_narrower_scope_more_never_allows_more(sets: list[LimitSet], one: LimitSet) -> None:
    assert allows_no_more(merged([*sets, one]), merged(sets))


@given(st.lists(st.builds(limit_set, LIMITS, st.sampled_from(NARROW)), max_size=4), st.randoms())
def test_their_order_does_not_matter(sets: list[LimitSet], random: Any) -> None:
    shuffled = random.sample(sets, len(sets))
    assert merged(shuffled) == merged(sets)


@given(LIMITS, LIMITS)
def test_a_tenants_own_replace_the_defaults_whenever_they_come(
    own: dict[str, Any], narrow: dict[str, Any]
) -> None:
    tenant, other = limit_set(own, LimitScope.TENANT), limit_set(narrow)
    assert merged([other, tenant]) == merged([tenant, other])
    alone = merged([tenant])
    assert {name: getattr(alone, name) for name in own} == read(own)
    assert all(getattr(alone, name) == getattr(RiskLimits(), name) for name in STRICTER.keys() - own.keys())


def test_what_nobody_sets_is_as_it_always_was() -> None:
    assert merged([]) == RiskLimits()


def test_the_highest_version_names_the_whole() -> None:
    assert merged([limit_set({}, version=3), limit_set({}, version=7), limit_set({}, version=5)]).version == 7


def test_symbols_allowed_in_two_scopes_are_those_in_both() -> None:
    one, other = limit_set({"symbols": ["A", "B"]}), limit_set({"symbols": ["B", "C"]}, LimitScope.STRATEGY)
    assert merged([one, other]).symbols == {"B"}


def test_no_symbol_in_common_leaves_none() -> None:
    one, other = limit_set({"symbols": ["A"]}), limit_set({"symbols": ["C"]}, LimitScope.STRATEGY)
    assert merged([one, other]).symbols == frozenset()


@pytest.mark.parametrize(
    "limits",
    [
        {"courage_max": 1},
        {"version": 9},
        {"volume_max": "-0.01"},
        {"volume_max": "NaN"},
        {"volume_max": "Infinity"},
        {"volume_max": None},
        {"submits_per_minute_max": -1},
        {"submits_per_minute_max": "many"},
        {"restricted": "EURUSD"},
        {"approval_needed": "perhaps"},
        [],
        None,
        "volume_max",
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_and_never_skipped(limits: Any) -> None:
    with pytest.raises(ValueError, match=r"no limit|number from 0|Expected|Invalid"):
        merged([limit_set(limits)])
