"""ErrorDNA: turn any exception into its category, code and fingerprint, and log it exactly once.

The fingerprint is the same for the same fault and changes with nothing else: the exception types along the
`__cause__` chain, our code, and the function that raised; never the message, which holds names and numbers.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final

import structlog

from core.errors.categories import HANDLING, Category, Handling
from core.errors.exceptions import TickgateError
from core.messages.jobs import ErrorReport, Reported, report_of
from core.telemetry import metrics

log = structlog.get_logger(__name__)

FINGERPRINT_LENGTH: Final = 16
CAUSES_MAX: Final = 10
OUR_PACKAGES: Final = ("gateway", "workers", "bridge", "core")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What an exception is. chain: exception types from the outermost to its first cause."""

    category: Category
    code: str
    fingerprint: str
    chain: tuple[str, ...]
    raised_in: str

    @property
    def handling(self) -> Handling:
        return HANDLING[self.category]


def diagnose(error: BaseException) -> Diagnosis:
    """Class an exception; one that was not raised on purpose is a DEFECT."""
    deliberate = isinstance(error, TickgateError)
    category = error.category if isinstance(error, TickgateError) else Category.DEFECT
    code = error.code if isinstance(error, TickgateError) else TickgateError.default_code
    causes = tuple(_causes(error))
    chain = tuple(f"{type(cause).__module__}.{type(cause).__qualname__}" for cause in causes)
    raised_in = _raised_in(error if deliberate else causes[-1])
    text = "\n".join((*chain, code, raised_in))
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]
    if isinstance(error, Reported):
        fingerprint = error.fingerprint or fingerprint
    return Diagnosis(category=category, code=code, fingerprint=fingerprint, chain=chain, raised_in=raised_in)


def report(error: BaseException, **fields: Any) -> ErrorReport:
    """Count and log `error` once, and return what its caller may know."""
    diagnosis = diagnose(error)
    metrics.ERRORS.labels(diagnosis.category, diagnosis.code).inc()
    known = {
        "category": diagnosis.category,
        "code": diagnosis.code,
        "fingerprint": diagnosis.fingerprint,
        "raised_in": diagnosis.raised_in,
        **fields,
    }
    if isinstance(error, Reported):
        log.warning("error.reported", **known)
    elif diagnosis.handling.page:
        log.error("error.needs_a_person", error=str(error), exc_info=error, **known)
    elif diagnosis.category is Category.UNAVAILABLE:
        log.warning("error.recovering", error=str(error), **known)
    else:
        log.info("error.told_caller", error=str(error), **known)
    return report_of(error, diagnosis.fingerprint)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _raised_in(error: BaseException) -> str:
    """Name the innermost function of ours that the error came through, or of whoever raised it."""
    ours, innermost = "", ""
    traceback = error.__traceback__
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", "?"))
        innermost = _function(module, traceback.tb_frame.f_code)
        if module.partition(".")[0] in OUR_PACKAGES:
            ours = innermost
        traceback = traceback.tb_next
    return ours or innermost


def _function(module: str, code: CodeType) -> str:
    return f"{module}:{code.co_qualname}"
