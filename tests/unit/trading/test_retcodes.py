"""Every answer a terminal can give has its meaning, and the page about them is the table itself."""

from pathlib import Path

import pytest

from bridge.connector.terminal import TerminalCode
from core.model.orders import LEGAL_MOVES, OrderState
from core.trading.retcodes import (
    PACKAGE_CODES,
    RETCODES,
    Action,
    RetcodeClass,
    as_markdown,
    meaning_of,
    meaning_of_error,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "retcodes.md"
DOCUMENTED = {
    # Source: mql5.com, "Return Codes of the Trade Server". 10005 and 10037 do not exist.
    "REQUOTE": 10004,
    "REJECT": 10006,
    "CANCEL": 10007,
    "PLACED": 10008,
    "DONE": 10009,
    "DONE_PARTIAL": 10010,
    "ERROR": 10011,
    "TIMEOUT": 10012,
    "INVALID": 10013,
    "INVALID_VOLUME": 10014,
    "INVALID_PRICE": 10015,
    "INVALID_STOPS": 10016,
    "TRADE_DISABLED": 10017,
    "MARKET_CLOSED": 10018,
    "NO_MONEY": 10019,
    "PRICE_CHANGED": 10020,
    "PRICE_OFF": 10021,
    "INVALID_EXPIRATION": 10022,
    "ORDER_CHANGED": 10023,
    "TOO_MANY_REQUESTS": 10024,
    "NO_CHANGES": 10025,
    "SERVER_DISABLES_AT": 10026,
    "CLIENT_DISABLES_AT": 10027,
    "LOCKED": 10028,
    "FROZEN": 10029,
    "INVALID_FILL": 10030,
    "CONNECTION": 10031,
    "ONLY_REAL": 10032,
    "LIMIT_ORDERS": 10033,
    "LIMIT_VOLUME": 10034,
    "INVALID_ORDER": 10035,
    "POSITION_CLOSED": 10036,
    "INVALID_CLOSE_VOLUME": 10038,
    "CLOSE_ORDER_EXIST": 10039,
    "LIMIT_POSITIONS": 10040,
    "REJECT_CANCEL": 10041,
    "LONG_ONLY": 10042,
    "SHORT_ONLY": 10043,
    "CLOSE_ONLY": 10044,
    "FIFO_CLOSE": 10045,
    "HEDGE_PROHIBITED": 10046,
}


def test_every_documented_retcode_has_a_meaning_and_no_other() -> None:
    assert set(RETCODES) == set(DOCUMENTED.values())


def test_every_error_of_the_package_has_a_meaning_and_no_other() -> None:
    assert set(PACKAGE_CODES) == {code.value for code in TerminalCode}


@pytest.mark.parametrize("retcode", [0, 10005, 10037, 10047, 20000, -1])
def test_an_unlisted_number_is_an_unknown_outcome(retcode: int) -> None:
    assert meaning_of(retcode).state is OrderState.UNKNOWN


@pytest.mark.parametrize("code", sorted(PACKAGE_CODES))
def test_no_result_is_an_unknown_outcome_whatever_the_error(code: int) -> None:
    assert meaning_of_error(code).state is OrderState.UNKNOWN
    assert meaning_of_error(code).action is Action.RECONCILE


@pytest.mark.parametrize("name", ["ERROR", "TIMEOUT", "LOCKED", "CONNECTION", "ORDER_CHANGED"])
def test_what_may_have_been_executed_is_an_unknown_outcome(name: str) -> None:
    assert meaning_of(DOCUMENTED[name]).sort is RetcodeClass.UNKNOWN


def test_every_class_and_action_is_used() -> None:
    meanings = [*RETCODES.values(), *PACKAGE_CODES.values()]
    assert {meaning.sort for meaning in meanings} == set(RetcodeClass)
    assert {meaning.action for meaning in meanings} == set(Action)


def test_every_state_is_one_a_sent_order_may_come_to() -> None:
    states = {meaning.state for meaning in RETCODES.values()}
    assert states <= LEGAL_MOVES[OrderState.SENDING]


def test_no_word_stands_for_two_answers() -> None:
    words = [meaning.code for meaning in (*RETCODES.values(), *PACKAGE_CODES.values())]
    assert len(words) == len(set(words))


def test_the_page_is_the_table() -> None:
    assert as_markdown() in DOCUMENT.read_text()
