"""ErrorDNA: the same fault has the same fingerprint, and callers learn nothing they should not."""

from collections.abc import Callable

import pytest

from core.errors.categories import Category
from core.errors.exceptions import Invalid, TickgateError, Unavailable
from core.infrastructure.error_handler import diagnose, report
from core.messages.jobs import DEFECT_TEXT, ErrorReport, Reported, raised_from, report_of
from core.telemetry.logs import redact


def _caught(function: Callable[[], None]) -> Exception:
    try:
        function()
    except Exception as e:
        return e
    raise AssertionError


def _lookup(name: str) -> None:
    _ = {}[name]


def _translated(name: str) -> None:
    try:
        _lookup(name)
    except KeyError as e:
        raise Unavailable(f"no {name}", code="GONE") from e


def test_the_message_is_not_part_of_the_fingerprint() -> None:
    one, two = (diagnose(_caught(lambda name=name: _lookup(name))) for name in ("a", "b"))
    assert one == two
    assert one.category is Category.DEFECT


def test_another_function_code_or_cause_is_another_fault() -> None:
    faults = [
        _caught(lambda: _lookup("a")),
        _caught(lambda: _translated("a")),
        _caught(lambda: int("x") and None),
        Unavailable("x", code="GONE"),
        Unavailable("x", code="AWAY"),
    ]
    assert len({diagnose(fault).fingerprint for fault in faults}) == len(faults)


def test_the_chain_runs_from_the_error_to_its_first_cause() -> None:
    assert diagnose(_caught(lambda: _translated("a"))).chain == (
        "core.errors.exceptions.Unavailable",
        "builtins.KeyError",
    )


def test_of_an_unexpected_error_only_the_fingerprint_is_told() -> None:
    told = report(_caught(lambda: _lookup("hunter2")))
    assert (told.category, told.code, told.public) == (Category.DEFECT, "DEFECT", DEFECT_TEXT)
    assert len(told.fingerprint) == 16


@pytest.mark.parametrize("category", Category)
def test_every_reported_category_can_be_raised_again(category: Category) -> None:
    error = raised_from(ErrorReport(category=category, code="X", public="why", fingerprint="f"))
    assert isinstance(error, TickgateError)
    assert error.public == "why"


def test_a_defect_keeps_its_fingerprint_across_processes() -> None:
    first = report(_caught(lambda: _lookup("a")))
    again = raised_from(first)
    assert isinstance(again, Reported)
    assert report(again).fingerprint == first.fingerprint


def test_details_stay_here() -> None:
    assert "secret" not in str(report_of(Invalid("no", detail="secret")))


def test_logs_hide_what_looks_like_a_secret() -> None:
    event = {
        "client_secret": "a",
        "text": "Authorization: Bearer abcdefghijkl and eyJhbGciOiJFZERTQSJ9.e30.c2ln",
        "symbol": "EURUSD",
    }
    hidden = str(redact(None, "", event))
    assert "abcdefghijkl" not in hidden
    assert "c2ln" not in hidden
    assert hidden.count("***") == 3
    assert "EURUSD" in hidden
