"""Our vectors: the same everywhere, blind to what does not matter, and near where records are alike."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors.exceptions import Defect
from core.model.records import CLOSES_MAX, CLOSES_MIN, Incident, MarketWindow, RecordKind, Watchlist
from core.model.vectors import DIMENSIONS, vector_of
from core.model.words import ASKED_MAX, LETTERS_MAX, asked, words, words_of

PRICES = st.floats(0.001, 1e6, allow_nan=False)
CLOSES = st.lists(PRICES, min_size=CLOSES_MIN, max_size=200)
MESSAGES = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=300
)


def incident(message: str, service: str = "bridge", category: str = "UNAVAILABLE") -> Incident:
    return Incident(message=message, service=service, category=category, at_ms=0)


def window(closes: list[float]) -> MarketWindow:
    return MarketWindow(symbol="EURUSD", interval="1m", start_ms=0, label="x", closes=closes)


def likeness(one: Incident | MarketWindow, other: Incident | MarketWindow) -> float:
    return float(np.dot(vector_of(one), vector_of(other)))


@given(message=MESSAGES)
def test_an_incidents_vector_has_length_one(message: str) -> None:
    vector = vector_of(incident(message))
    assert len(vector) == DIMENSIONS[RecordKind.INCIDENTS]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@given(closes=st.lists(PRICES, min_size=CLOSES_MIN, max_size=CLOSES_MAX))
def test_a_windows_vector_has_length_one(closes: list[float]) -> None:
    vector = vector_of(window(closes))
    assert len(vector) == DIMENSIONS[RecordKind.MARKET_WINDOWS]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_every_process_makes_the_same_vector() -> None:
    program = (
        "from core.model.records import Incident\nfrom core.model.vectors import vector_of\n"
        "print(vector_of(Incident(message='no route to host', service='bridge', category='C', at_ms=0)))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert seen == {str(vector_of(incident("no route to host", category="C")))}


def test_a_stored_vector_is_the_one_made_today() -> None:
    """It may change only with a migration that makes all stored ones anew."""
    vector = vector_of(incident("connection refused by 10.0.0.1:5432"))
    strongest = sorted(range(len(vector)), key=lambda at: -abs(vector[at]))[:4]
    assert [(at, round(vector[at], 4)) for at in strongest] == [
        (104, 0.5106),
        (221, -0.3354),
        (246, -0.3354),
        (45, -0.3128),
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timeout after 31 ms", "timeout after 29 ms"),
        ("timeout after 31ms", "timeout after 1.5 ms"),
        ("connection to 10.0.0.1:5432 refused", "connection to 192.168.17.4:6432 refused"),
        ("job 0198c2f07a3d7bd1b1a2 lost", "job 01990b6ac4f47c0f9e5d lost"),
        (
            "order 3f2504e0-4f89-11d3-9a0c-0305e82c3301 gone",
            "order 9b2504e0-4f89-11d3-9a0c-0305e82c33ff gone",
        ),
        ("bad frame 0x1F", "bad frame 0xdeadbeef"),
        ("ticket 8f3a2c", "ticket 7b1d9e"),
        ("Connection Reset", "connection reset"),
    ],
)
def test_numbers_identifiers_and_case_do_not_matter(one: str, other: str) -> None:
    assert likeness(incident(one), incident(other)) == pytest.approx(1, abs=1e-5)


def test_a_word_of_hexadecimal_letters_alone_stays_a_word() -> None:
    assert likeness(incident("the facade fell"), incident("the decade fell")) < 0.95


def test_the_near_duplicate_is_nearer_than_the_same_service_and_that_than_a_stranger() -> None:
    lost = incident("connection to the tick store was reset while inserting batch 17")
    again = incident("connection to the tick store was reset while inserting batch 94 of EURUSD")
    beside = incident("the lease of source demo has run out")
    elsewhere = incident("margin level is below the limit", service="trading", category="DENIED")
    assert likeness(lost, again) > 0.8
    assert likeness(lost, again) > likeness(lost, beside) + 0.3
    assert likeness(lost, beside) > likeness(lost, elsewhere) + 0.1


@given(message=MESSAGES)
def test_no_other_service_is_as_near_as_the_incidents_own(message: str) -> None:
    own = incident(message)
    assert likeness(own, own) > likeness(own, incident(message, service="gateway"))


@given(closes=CLOSES, factor=st.floats(0.01, 100))
def test_the_level_of_prices_does_not_matter(closes: list[float], factor: float) -> None:
    moved = [close * factor for close in closes]
    if np.ptp(np.log(closes)) > 1e-6 or len(set(closes)) == 1 == len(set(moved)):
        assert likeness(window(closes), window(moved)) == pytest.approx(1, abs=1e-3)


@given(
    steps=st.lists(st.floats(-0.01, 0.01), min_size=CLOSES_MIN - 1, max_size=200), factor=st.floats(0.1, 10)
)
def test_the_size_of_the_move_does_not_matter(steps: list[float], factor: float) -> None:
    if np.ptp(np.cumsum([0, *steps])) < 1e-6:
        return
    small = np.exp(np.cumsum([0, *steps])).tolist()
    large = np.exp(np.cumsum([0, *steps]) * factor).tolist()
    assert likeness(window(small), window(large)) == pytest.approx(1, abs=1e-3)


def test_the_same_move_in_fewer_bars_is_near() -> None:
    steps = np.cumsum(np.sin(np.linspace(0, 6, 257)) * 0.001)
    fine, coarse = np.exp(steps).tolist(), np.exp(steps[::4]).tolist()
    assert likeness(window(fine), window(coarse)) > 0.99


def test_a_climb_is_the_opposite_of_a_fall() -> None:
    climb = [1.0 + step / 100 for step in range(40)]
    assert likeness(window(climb), window(climb[::-1])) < -0.9


def test_a_little_noise_leaves_a_window_nearest_to_itself() -> None:
    random = np.random.default_rng(7)
    moves = [np.cumsum(random.normal(0, 0.001, 128)) for _ in range(50)]
    noisy = window(np.exp(moves[0] + random.normal(0, 0.0002, 128)).tolist())
    near = [likeness(noisy, window(np.exp(move).tolist())) for move in moves]
    assert near.index(max(near)) == 0
    assert near[0] > 2 * sorted(near)[-2]


def test_flat_windows_are_like_each_other_and_like_nothing_else() -> None:
    flat, other = window([1.1] * 8), window([2_000.0] * 500)
    assert likeness(flat, other) == 1
    assert likeness(flat, window([1.0 + step for step in range(40)])) == 0


def test_prices_at_the_ends_of_what_is_allowed_have_a_vector() -> None:
    assert np.isfinite(vector_of(window([5e-324, 1e15] * 4))).all()


def test_what_has_no_vector_is_a_defect() -> None:
    with pytest.raises(Defect):
        vector_of(Watchlist(title="t", symbols=["EURUSD"]))
    with pytest.raises(Defect):
        words_of(Watchlist(title="t", symbols=["EURUSD"]))


@given(text=MESSAGES)
def test_words_are_bare_small_and_bounded(text: str) -> None:
    for word in words(text):
        assert word.isalnum()
        assert 1 <= len(word) <= LETTERS_MAX
    assert len(asked(text)) == len(set(asked(text))) <= ASKED_MAX


def test_words_keep_the_numbers_that_vectors_forget() -> None:
    assert words("Error 10061: no_route-to host") == ["error", "10061", "no", "route", "to", "host"]


def test_a_record_is_found_by_every_text_it_has() -> None:
    found = Incident(message="a b", service="c", category="d", at_ms=0, resolution="e")
    assert words_of(found) == ["a", "b", "c", "d", "e"]
    assert words_of(window([1.0] * 8)) == ["eurusd", "1m", "x"]
