"""docs/trading.md tells of the code that is there: its tables are made of it, and nothing of it is left out."""

import re

import pytest

from core.model.ledger import BreakSort
from core.model.orders import OrderState
from core.trading.risk import CHECKS, assess
from core.trading.submission import NO_VENUE
from gateway.catalog import ENDPOINTS
from tests.trading_tables import PAGE, Code, codes, tables, written
from tests.unit.trading.test_risk import ALONE

TEXT = PAGE.read_text()


def test_every_table_is_the_codes() -> None:
    assert written(TEXT) == TEXT, "run python -m tests.trading_tables"


@pytest.mark.parametrize("name", sorted(tables()))
def test_every_table_is_on_the_page_once(name: str) -> None:
    assert TEXT.count(f"<!-- table: {name} -->") == 1


def test_a_table_that_is_not_as_the_code_is_found_out() -> None:
    assert written(TEXT.replace("`DAILY_LOSS`", "`DAILY_GAIN`")) == TEXT


def test_every_check_can_deny_something() -> None:
    assert {one.check for one in codes()} == set(range(1, len(CHECKS) + 1))


def test_no_two_denials_have_one_code() -> None:
    names = [one.code for one in codes()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("code", sorted(ALONE))
def test_what_a_check_says_when_it_is_run_is_what_is_written(code: str) -> None:
    _, case = ALONE[code]
    said = next(one for one in assess(*case) if one.code == code)
    listed = next(one for one in codes() if one.code == code)
    assert listed.check == said.check
    assert _fits(listed, said.reason, said.numbers)


def test_every_denial_that_is_written_was_brought_about_or_is_of_what_is_not_known() -> None:
    """The others need facts that are missing; all of them say so by their names."""
    rest = {one.code for one in codes()} - set(ALONE) - {NO_VENUE.code}
    assert {code for code in rest if not re.search("UNKNOWN|UNCHECKED|NO_QUOTE", code)} == set()


def test_every_state_and_every_break_has_its_row() -> None:
    made = tables()
    assert re.findall(r"^\| \**([A-Z_]+)\** \|", made["states"], re.MULTILINE) == [*OrderState]
    assert re.findall(r"^\| (\w+) \|", made["breaks"], re.MULTILINE)[1:] == [*BreakSort]


def test_every_path_the_page_names_is_one_of_ours() -> None:
    named = set(re.findall(r"`(?:[A-Z]+ )?(/v1/[\w/{}-]+)`", TEXT))
    assert named - {endpoint.path for endpoint in ENDPOINTS} == set()


def _fits(listed: Code, reason: str, numbers: dict[str, str]) -> bool:
    pattern = re.escape(listed.reason).replace(re.escape("..."), ".*")
    names = set(listed.numbers) - {"the price"}
    return re.fullmatch(pattern, reason) is not None and names <= set(numbers)
