"""The tables of docs/trading.md, made from the code: `python -m tests.trading_tables` writes them into the page.

Denial codes are read off the checks themselves: what each `yield` of core/trading/risk.py says, and what it calls.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from core.model.ledger import BreakSort
from core.model.orders import LEGAL_MOVES, TERMINAL, OrderState
from core.model.risk import RiskLimits
from core.settings import TradingSettings
from core.trading import approving, stops
from core.trading import limits as merging
from core.trading.risk import CHECKS
from core.trading.submission import NO_VENUE

PAGE: Final = Path(__file__).parents[1] / "docs" / "trading.md"
_S = OrderState

MEANINGS: Final[dict[OrderState, str]] = {
    _S.CREATED: "before it is judged; never stored",
    _S.DENIED: "refused by us, with every reason; the venue never hears of it",
    _S.QUEUED: "kept, and still to be sent",
    _S.SENDING: "committed before the venue is asked: from here on it may have arrived",
    _S.ACCEPTED: "works at the venue",
    _S.PARTIALLY_FILLED: "works, and a part of it is filled",
    _S.FILLED: "its deals add up to its volume",
    _S.REJECTED: "refused by the venue, or surely never asked of it",
    _S.CANCELED: "taken back; what was filled stays filled",
    _S.EXPIRED: "its time was over",
    _S.UNKNOWN: "sent, and nobody can say what became of it; an alert",
    _S.PENDING_CANCEL: "works, until the venue has taken it back",
    _S.PENDING_MODIFY: "works as it was, until the venue has changed it",
}
LIMITS: Final[dict[str, str]] = {
    "submits_per_minute_max": "orders of an account within a minute, denied ones too",
    "duplicate_window_ms": "for so long no second order of equal symbol, side, type, volume and prices",
    "volume_max": "lots of one order",
    "notional_max": "worth of one order, in the account's currency",
    "account_notional_max": "worth of all positions and working orders",
    "position_max": "lots in one direction, working orders included",
    "collar_share": "how far a price may be from the market",
    "quote_age_ms_max": "how old the newest quote may be",
    "spread_share_max": "ask less bid, as a share of the middle",
    "margin_share_max": "share of the free margin that one order may need",
    "daily_loss_max": "equity lost since the start of the UTC day",
    "drawdown_share_max": "how far equity may be below its peak",
    "consecutive_rejects_max": "orders the venue refuses in a row",
    "restricted": "symbols that may not be traded",
    "symbols": "symbols that may be; none named: all",
    "approval_needed": "every order needs a person's approval",
}
SETTINGS: Final[dict[str, str]] = {
    "send_timeout_s": "a venue's time to answer; then UNKNOWN",
    "absent_s": "for so long a venue must show nothing of an order before that is proof",
    "sweep_interval_ms": "between two looks into the outbox",
    "sync_interval_ms": "between two comparisons of an account with its venue",
    "market_valid_for_ms": "a market order without `valid_for_ms` is not sent later than this",
    "key_file": "the Ed25519 key (a private JWK set) that signs orders for terminals; without it none is sent to one",
    "paper_seed": "what slippage on paper is drawn by, with the order's id",
    "paper_slippage_ticks": "a market or stop order fills on paper worse by up to so many ticks",
    "paper_latency_ms": "at least so long between being taken on paper and meeting a quote",
    "paper_latency_spread_ms": "up to so much longer, drawn by seed and order id",
    "paper_lots_per_quote": "one quote fills no more of one order, and none twice; 0: any volume",
    "paper_quote_age_ms_max": "an older quote fills nothing on paper",
}
BREAKS: Final[dict[BreakSort, str]] = {
    BreakSort.MISSING: "an order works here, and the venue has not had it twice, `absent_s` apart: CANCELED,"
    " code `MISSING_AT_VENUE`",
    BreakSort.EXTERNAL: "an order works there that we never sent: adopted, `external: true`; at the first comparison"
    " also positions that were there before us",
    BreakSort.QUANTITY: "the fills we know would make another position than the venue holds: the venue's is taken",
    BreakSort.RESURFACED: "an order that is over here works there, or was filled there after it was given up: logged as"
    " an error (`order.resurfaced`); what works is taken back at the venue, what was filled counts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A denial code as the code of its check has it. numbers: the names of what is told with it."""

    check: int
    code: str
    reason: str
    numbers: tuple[str, ...]


def codes() -> list[Code]:
    """Return every denial there can be, in the order of the checks."""
    found = [
        Code(check=2, code=NO_VENUE.code, reason=NO_VENUE.reason, numbers=tuple(NO_VENUE.numbers)),
        *(one for number, check in enumerate(CHECKS, 1) for one in _yielded(check, number)),
    ]
    return sorted(found, key=lambda one: one.check)


def limits_of(number: int) -> set[str]:
    """Return the names of the limits that a check reads."""
    return set(_limits_read(_tree(CHECKS[number - 1])))


def tables() -> dict[str, str]:
    """Return every table by its name on the page."""
    return {
        "states": _table("state|it is|it may become", map(_state, OrderState)),
        "denials": _table(
            "check|code|what is said|with these numbers",
            (
                f"{one.check}|`{one.code}`|{one.reason}|{', '.join(f'`{n}`' for n in one.numbers) or '-'}"
                for one in codes()
            ),
        ),
        "limits": _table("limit|default|of|of two values holds|check", map(_limit, merging.STRICTER)),
        "settings": _table(
            "`TICKGATE_TRADING_*`|default|is",
            (
                f"`{field.name.upper()}`|{_plain(field.default)}|{SETTINGS[field.name]}"
                for field in msgspec.structs.fields(TradingSettings)
            ),
        ),
        "breaks": _table("break|what differs, and what follows", (f"{k}|{BREAKS[k]}" for k in BreakSort)),
    }


def written(page: str) -> str:
    """Return the page with its tables as they should be. Raises: KeyError: there is no such table."""
    made = tables()
    pattern = r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{made[found[2]]}\n{found[3]}", page, flags=re.DOTALL)


def _state(state: OrderState) -> str:
    nexts = [str(one) for one in OrderState if one in LEGAL_MOVES[state]]
    name = f"**{state}**" if state in TERMINAL else str(state)
    return f"{name}|{MEANINGS[state]}|{', '.join(nexts) or '-'}"


def _limit(name: str) -> str:
    default = getattr(RiskLimits(), name)
    used = [str(number) for number in range(1, len(CHECKS) + 1) if name in limits_of(number)]
    return f"`{name}`|{_plain(default)}|{LIMITS[name]}|{_STRICTER[merging.STRICTER[name]]}|{', '.join(used)}"


CALLED: Final = {"overdone": stops.overdone, "unapproved": approving.unapproved}
"""Where checks say what they have in common with others."""
_STRICTER: Final[dict[Callable[..., Any], str]] = {
    merging.STRICTER["volume_max"]: "the smaller",
    merging.STRICTER["duplicate_window_ms"]: "the larger",
    merging.STRICTER["restricted"]: "both together",
    merging.STRICTER["symbols"]: "what is in both",
    merging.STRICTER["approval_needed"]: "yes, if either says so",
}


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return f"{value:,f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) if isinstance(value, float) else "none"


def _table(head: str, rows: Iterator[str]) -> str:
    names = head.split("|")
    lines = [names, ["---"] * len(names), *(row.split("|") for row in rows)]
    assert all(len(line) == len(names) for line in lines)
    texts = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join(texts).replace("| --- ", "|---").replace("--- |", "---|") + "\n"


def _tree(function: Callable[..., Any]) -> ast.AST:
    return ast.parse(inspect.getsource(function))


def _yielded(function: Callable[..., Any], number: int) -> Iterator[Code]:
    """Yield what a check can say, in the order in which it is written."""
    assigned: dict[str, ast.expr] = {}
    found: list[tuple[int, Code]] = []
    nodes = [node for node in ast.walk(_tree(function)) if hasattr(node, "lineno")]
    for node in sorted(nodes, key=lambda one: one.lineno):  # type: ignore[attr-defined]
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() as value)
            ):
                assigned[name] = value
            case ast.Yield(
                value=ast.Tuple(
                    elts=[ast.Constant(value=str(code)), reason, (ast.Dict() | ast.Name()) as seen]
                )
            ):
                numbers = assigned[seen.id] if isinstance(seen, ast.Name) else seen
                one = Code(check=number, code=code, reason=_words(reason), numbers=_names(numbers))
                found.append((node.lineno, one))
            case ast.Yield():
                raise AssertionError(f"{function.__name__} line {node.lineno} says what nobody can read")
            case ast.YieldFrom(value=ast.Call(func=ast.Name(id=name))):
                found += [(node.lineno, one) for one in _yielded(function.__globals__[name], number)]
    yield from (one for _, one in found)


def _limits_read(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="limits"), attr=name):
                yield name
            case ast.YieldFrom(value=ast.Call(func=ast.Name(id=name))):
                yield from _limits_read(_tree(CALLED[name]))


def _words(reason: ast.expr) -> str:
    match reason:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_words(part) if isinstance(part, ast.Constant) else "..." for part in parts)
    raise AssertionError("a reason is a text")


def _names(numbers: ast.expr) -> tuple[str, ...]:
    assert isinstance(numbers, ast.Dict)
    return tuple(key.value if isinstance(key, ast.Constant) else "the price" for key in numbers.keys)  # type: ignore[misc]


def main() -> None:
    PAGE.write_text(written(PAGE.read_text()))


if __name__ == "__main__":
    main()
