"""What MetaTrader 5 answers to a trade request, and what follows from each answer: one table, complete.

Sources: the documentation's "Return codes of the trade server" (TRADE_RETCODE_*), the Python package's RES_ constants,
and what users met in practice. A number nobody has listed is an unknown outcome, never a refusal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from core.model.orders import OrderState

DONE: Final = 10_009
DONE_PARTIAL: Final = 10_010
PLACED: Final = 10_008
NO_CHANGES: Final = 10_025
TIMEOUT: Final = 10_012
CONNECTION: Final = 10_031
INVALID_FILL: Final = 10_030


class RetcodeClass(StrEnum):
    """What sort of answer it is."""

    SUCCESS = "success"
    UNKNOWN = "unknown outcome"
    PRICE = "price"
    RATE = "rate"
    SESSION = "session"
    MISTAKE = "our mistake"
    MARGIN = "margin"
    LIMITS = "limits"
    PERMISSION = "permission"
    REFUSED = "refused"


class Action(StrEnum):
    """What is done about it, without a person and by whom else."""

    CONFIRM = "take it, and let deals and orders confirm it"
    RECONCILE = "look for the order by comment and magic; never send it again before that"
    REPRICE = "refused; whoever still wants it asks again at today's price"
    SLOW_DOWN = "asked again more slowly, while its time lasts; then refused"
    WAIT = "refused; ask again when the market is open"
    MEND = "refused; a check before sending should have caught it: a defect"
    FUND = "refused; the account needs money, or smaller orders"
    REDUCE = "refused; close or cancel something first"
    UNLOCK = "refused; a person has to allow it at the broker or in the terminal"
    ACCEPT = "refused; the venue has decided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One answer. code: our stable word; state: of an order that was sent and got this answer."""

    sort: RetcodeClass
    action: Action
    code: str
    state: OrderState
    text: str


_C, _A, _S = RetcodeClass, Action, OrderState
_FOLLOWS: Final[Mapping[RetcodeClass, tuple[Action, OrderState]]] = {
    _C.UNKNOWN: (_A.RECONCILE, _S.UNKNOWN),
    _C.PRICE: (_A.REPRICE, _S.REJECTED),
    _C.RATE: (_A.SLOW_DOWN, _S.REJECTED),
    _C.SESSION: (_A.WAIT, _S.REJECTED),
    _C.MISTAKE: (_A.MEND, _S.REJECTED),
    _C.MARGIN: (_A.FUND, _S.REJECTED),
    _C.LIMITS: (_A.REDUCE, _S.REJECTED),
    _C.PERMISSION: (_A.UNLOCK, _S.REJECTED),
    _C.REFUSED: (_A.ACCEPT, _S.REJECTED),
}


def _success(code: str, state: OrderState, text: str) -> Meaning:
    return Meaning(sort=_C.SUCCESS, action=_A.CONFIRM, code=code, state=state, text=text)


def _not(sort: RetcodeClass, code: str, text: str) -> Meaning:
    action, state = _FOLLOWS[sort]
    return Meaning(sort=sort, action=action, code=code, state=state, text=text)


RETCODES: Final[Mapping[int, Meaning]] = {
    10_004: _not(_C.PRICE, "REQUOTE", "the price was requoted"),
    10_006: _not(_C.REFUSED, "VENUE_REFUSED", "the request was rejected"),
    10_007: _not(_C.REFUSED, "CANCELED_BY_TRADER", "the request was cancelled by the trader"),
    PLACED: _success("PLACED", _S.ACCEPTED, "the order was placed"),
    DONE: _success("DONE", _S.FILLED, "the request was completed"),
    DONE_PARTIAL: _success("DONE_PARTIAL", _S.PARTIALLY_FILLED, "only a part of it was completed"),
    10_011: _not(_C.UNKNOWN, "PROCESSING_ERROR", "processing the request failed"),
    TIMEOUT: _not(_C.UNKNOWN, "VENUE_TIMEOUT", "the request timed out"),
    10_013: _not(_C.MISTAKE, "INVALID_ORDER", "the request is invalid"),
    10_014: _not(_C.MISTAKE, "INVALID_VOLUME", "the volume is invalid"),
    10_015: _not(_C.MISTAKE, "INVALID_PRICE", "the price is invalid"),
    10_016: _not(_C.MISTAKE, "INVALID_STOPS", "stop loss or take profit is invalid"),
    10_017: _not(_C.PERMISSION, "TRADE_DISABLED", "trading is disabled"),
    10_018: _not(_C.SESSION, "MARKET_CLOSED", "the market is closed"),
    10_019: _not(_C.MARGIN, "NO_MONEY", "the account has not enough money"),
    10_020: _not(_C.PRICE, "PRICE_CHANGED", "the price has changed"),
    10_021: _not(_C.PRICE, "NO_QUOTES", "there is no quote to trade at"),
    10_022: _not(_C.MISTAKE, "INVALID_EXPIRATION", "the expiration is invalid"),
    10_023: _not(_C.UNKNOWN, "ORDER_CHANGED", "the order's state has changed meanwhile"),
    10_024: _not(_C.RATE, "TOO_MANY_REQUESTS", "requests come too often"),
    NO_CHANGES: _success("NO_CHANGES", _S.ACCEPTED, "there was nothing to change"),
    10_026: _not(_C.PERMISSION, "DISABLED_BY_SERVER", "the server has disabled automated trading"),
    10_027: _not(_C.PERMISSION, "DISABLED_BY_TERMINAL", "the terminal has disabled automated trading"),
    10_028: _not(_C.UNKNOWN, "LOCKED", "the request is locked and being processed"),
    10_029: _not(_C.REFUSED, "FROZEN", "the order or position is frozen"),
    INVALID_FILL: _not(_C.MISTAKE, "INVALID_FILLING", "the filling type is not supported"),
    CONNECTION: _not(_C.UNKNOWN, "NO_CONNECTION", "there is no connection to the trade server"),
    10_032: _not(_C.PERMISSION, "ONLY_REAL", "only real accounts may do this"),
    10_033: _not(_C.LIMITS, "ORDERS_LIMIT", "the account has its most pending orders"),
    10_034: _not(_C.LIMITS, "VOLUME_LIMIT", "the symbol's most volume is reached"),
    10_035: _not(_C.MISTAKE, "INVALID_ORDER_TYPE", "the order type is invalid or prohibited"),
    10_036: _not(_C.REFUSED, "POSITION_CLOSED", "the position has been closed already"),
    10_038: _not(_C.MISTAKE, "INVALID_CLOSE_VOLUME", "more would be closed than is held"),
    10_039: _not(_C.REFUSED, "CLOSE_ORDER_EXISTS", "the position is being closed already"),
    10_040: _not(_C.LIMITS, "POSITIONS_LIMIT", "the account has its most positions"),
    10_041: _not(_C.REFUSED, "ACTIVATION_REJECTED", "activation was rejected and the order cancelled"),
    10_042: _not(_C.PERMISSION, "LONG_ONLY", "only long positions are allowed"),
    10_043: _not(_C.PERMISSION, "SHORT_ONLY", "only short positions are allowed"),
    10_044: _not(_C.PERMISSION, "CLOSE_ONLY", "positions may only be closed"),
    10_045: _not(_C.PERMISSION, "FIFO_CLOSE", "positions are closed first in, first out"),
    10_046: _not(_C.PERMISSION, "HEDGE_PROHIBITED", "opposite positions in one symbol are prohibited"),
}

PACKAGE_CODES: Final[Mapping[int, Meaning]] = {
    # `last_error` after order_send returned None. Some surely were not sent; to look costs less than to be wrong.
    1: _not(_C.UNKNOWN, "NO_RESULT", "the terminal gave no result and no error"),
    -1: _not(_C.UNKNOWN, "TERMINAL_FAILED", "the terminal failed"),
    -2: _not(_C.UNKNOWN, "TERMINAL_INVALID_PARAMS", "the terminal calls the request's parameters invalid"),
    -3: _not(_C.UNKNOWN, "TERMINAL_NO_MEMORY", "the terminal is out of memory"),
    -4: _not(_C.UNKNOWN, "TERMINAL_NOT_FOUND", "the terminal did not find it"),
    -5: _not(_C.UNKNOWN, "TERMINAL_VERSION", "package and terminal are of different versions"),
    -6: _not(_C.UNKNOWN, "TERMINAL_AUTH_FAILED", "the terminal is not signed in"),
    -7: _not(_C.UNKNOWN, "TERMINAL_UNSUPPORTED", "the terminal does not support it"),
    -8: _not(_C.UNKNOWN, "TERMINAL_AUTO_TRADING_OFF", "automated trading is off in the terminal"),
    -10_000: _not(_C.UNKNOWN, "TERMINAL_PIPE_FAILED", "the pipe to the terminal failed"),
    -10_001: _not(_C.UNKNOWN, "TERMINAL_PIPE_SEND", "sending to the terminal failed"),
    -10_002: _not(_C.UNKNOWN, "TERMINAL_PIPE_RECEIVE", "the terminal's answer was not received"),
    -10_003: _not(_C.UNKNOWN, "TERMINAL_PIPE_INIT", "the pipe to the terminal was not set up"),
    -10_004: _not(_C.UNKNOWN, "TERMINAL_PIPE_CONNECT", "there is no pipe to the terminal"),
    -10_005: _not(_C.UNKNOWN, "TERMINAL_PIPE_TIMEOUT", "the terminal did not answer in time"),
}

UNLISTED: Final = _not(_C.UNKNOWN, "UNLISTED_RETCODE", "an answer nobody has listed")


def meaning_of(retcode: int) -> Meaning:
    """Return what the trade server's answer means."""
    return RETCODES.get(retcode, UNLISTED)


def meaning_of_error(error_code: int) -> Meaning:
    """Return what it means that order_send gave no result, and the package this error."""
    return PACKAGE_CODES.get(error_code, UNLISTED)


def as_markdown() -> str:
    """Return both tables, as docs/retcodes.md has them."""
    head = "| {} | code | class | order becomes | what it says | what is done |\n|---|---|---|---|---|---|\n"
    return "\n".join(
        head.format(name) + "".join(_row(number, meaning) for number, meaning in table.items())
        for name, table in (("retcode", RETCODES), ("last_error", PACKAGE_CODES))
    )


def _row(number: int, meaning: Meaning) -> str:
    words = (str(number), meaning.code, str(meaning.sort), str(meaning.state), meaning.text)
    return f"| {' | '.join(words)} | {meaning.action} |\n"
