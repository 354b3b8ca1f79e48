"""What patterns mean, in words: a caller whose text does not fit is told what would, and not an expression."""

import ast
import re
from collections.abc import Mapping
from typing import Final

from core.messages.orders import ORDER_ID_PATTERN
from core.model.records import CURRENCY_PATTERN, DECIMAL_PATTERN, ID_PATTERN
from gateway.order_shapes import AMOUNT_PATTERN

WORDS: Final[Mapping[str, str]] = {
    AMOUNT_PATTERN: 'a decimal as text, not below 0, such as "0.10"',
    DECIMAL_PATTERN: 'a decimal as text, above 0, such as "0.01"',
    ID_PATTERN: "1 to 64 letters, digits or _$#.+!@^=-",
    CURRENCY_PATTERN: "a currency in capitals, such as USD",
    ORDER_ID_PATTERN: "the id of an order, 26 characters",
}
_EXPRESSION: Final = re.compile(r"Expected `str` matching regex ('.*'|\".*\")", re.DOTALL)


def spelled(problem: str) -> str:
    """Return a problem as msgspec names it, with an expression it wants matched in words where there are any."""
    found = _EXPRESSION.fullmatch(problem)
    if found is None:
        return problem
    words = WORDS.get(ast.literal_eval(found[1]))
    return problem if words is None else f"Expected {words}"
