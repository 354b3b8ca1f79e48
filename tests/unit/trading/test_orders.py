"""The table of legal moves: every order ends, and nothing that is over comes back but a late fill."""

import pytest

from core.model.orders import LEGAL_MOVES, TERMINAL, WORKING, OrderState, may_move


def reachable(start: OrderState) -> set[OrderState]:
    found, pending = set(), [start]
    while pending:
        for state in LEGAL_MOVES[pending.pop()] - found:
            found.add(state)
            pending.append(state)
    return found


def test_every_state_can_be_reached() -> None:
    assert reachable(OrderState.CREATED) | {OrderState.CREATED} == set(OrderState)


@pytest.mark.parametrize("state", sorted(OrderState))
def test_from_everywhere_an_order_can_end(state: OrderState) -> None:
    assert state in TERMINAL or reachable(state) & TERMINAL


def test_only_a_queued_order_is_sent() -> None:
    assert [state for state in OrderState if may_move(state, OrderState.SENDING)] == [OrderState.QUEUED]


def test_what_is_over_stays_over_but_for_a_fill_that_came_late() -> None:
    moves = {(old, new) for old in TERMINAL for new in LEGAL_MOVES[old]}
    late = {OrderState.PARTIALLY_FILLED, OrderState.FILLED}
    assert moves == {(OrderState.CANCELED, new) for new in late}


def test_an_order_whose_fate_is_unknown_is_never_sent_without_being_queued_again() -> None:
    assert not may_move(OrderState.UNKNOWN, OrderState.SENDING)
    assert may_move(OrderState.UNKNOWN, OrderState.QUEUED)


def test_created_orders_are_not_at_work_yet() -> None:
    assert OrderState.CREATED not in WORKING
    assert {OrderState.QUEUED, OrderState.SENDING, OrderState.UNKNOWN} <= WORKING
