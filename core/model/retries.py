"""What becomes of a job that failed: is it tried again, told to its caller only, or buried as a dead letter as well."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from core.errors.categories import Category


class RetryClass(StrEnum):
    """How a queue or a function treats failures. A killed worker's job runs again in every class.

    NEVER: somebody waits; they are told at once and decide themselves. WHEN_UNAVAILABLE: nobody waits, so what was
    away is tried again. RECONCILE_FIRST: an unknown outcome as well; a function whose `job_try` is above 1 looks
    before it acts.
    """

    NEVER = "NEVER"
    WHEN_UNAVAILABLE = "WHEN_UNAVAILABLE"
    RECONCILE_FIRST = "RECONCILE_FIRST"


class Verdict(StrEnum):
    """TELL the caller; try AGAIN later; BURY it, which tells the caller too."""

    TELL = "TELL"
    AGAIN = "AGAIN"
    BURY = "BURY"


TRIED_AGAIN: Final[Mapping[RetryClass, frozenset[Category]]] = {
    RetryClass.NEVER: frozenset(),
    RetryClass.WHEN_UNAVAILABLE: frozenset({Category.UNAVAILABLE}),
    RetryClass.RECONCILE_FIRST: frozenset({Category.UNAVAILABLE, Category.UNKNOWN_OUTCOME}),
}
assert set(TRIED_AGAIN) == set(RetryClass), "every retry class says what it tries again"

BURIED: Final = frozenset(
    {Category.DEFECT, Category.CORRUPT, Category.MISCONFIGURED, Category.UNKNOWN_OUTCOME}
)
"""Nobody's caller can do anything about these: a person has to look."""


def judge(category: Category, retry: RetryClass, *, attempt: int, tries: int) -> Verdict:
    """Say what becomes of a job whose `attempt`-th attempt failed so."""
    if category in TRIED_AGAIN[retry]:
        return Verdict.AGAIN if attempt < tries else Verdict.BURY
    return Verdict.BURY if category in BURIED else Verdict.TELL
