"""What is wrong with a body is said by the field's name and in words."""

from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest

from core.messages.orders import text
from gateway.bodies import _converted
from gateway.order_shapes import OrderWish
from gateway.problems import Unfit
from gateway.spellings import WORDS, spelled

ORDER = {"account": "paper", "symbol": "EURUSD", "side": "buy", "type": "market", "volume": "0.1"}


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"volume": "-1"}, "volume", "a decimal as text"),
        ({"account": "a b"}, "account", "letters, digits"),
        ({"colour": "red"}, "colour", "no such field"),
        ({"side": "hold"}, "side", "hold"),
    ],
)
def test_a_field_that_does_not_fit_is_named_and_what_would_fit_is_said(
    changes: dict[str, Any], name: str, words: str
) -> None:
    with pytest.raises(Unfit) as refused:
        _converted(msgspec.json.encode({**ORDER, **changes}), OrderWish)
    assert list(refused.value.problems) == [name]
    assert words in refused.value.problems[name]


@pytest.mark.parametrize("pattern", WORDS)
def test_every_expression_that_has_words_is_spelled(pattern: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert("\n\n", Annotated[str, msgspec.Meta(pattern=pattern)])
    assert spelled(str(refused.value)) == f"Expected {WORDS[pattern]}"


def test_an_expression_without_words_is_said_as_it_is() -> None:
    problem = "Expected `str` matching regex '^x$'"
    assert spelled(problem) == problem
    assert spelled("Expected `int`, got `str`") == "Expected `int`, got `str`"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("1.0842001943076081007115489", "1.084200194308"),
        ("100000.00", "100000"),
        ("0.000000000001", "0.000000000001"),
        ("1E+3", "1000"),
        ("-0.50", "-0.5"),
    ],
)
def test_a_decimal_is_told_with_the_digits_one_may_ask_for(value: str, told: str) -> None:
    assert text(Decimal(value)) == told
