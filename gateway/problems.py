"""The one place where errors become HTTP: problem details with stable codes. Source: RFC 9457."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from core.errors.categories import HANDLING, Category, Retry
from core.errors.exceptions import Invalid, RateLimited, TickgateError
from core.messages.jobs import ErrorReport
from core.telemetry import tracing

CONTENT_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1

TITLES: Final[dict[Category, str]] = {
    Category.INVALID: "The request makes no sense as written",
    Category.UNAUTHORIZED: "Authentication is needed",
    Category.FORBIDDEN: "You may not do this",
    Category.NOT_FOUND: "There is no such thing",
    Category.CONFLICT: "It is not in the right state",
    Category.DENIED: "We refused",
    Category.REJECTED: "The venue refused",
    Category.RATE_LIMITED: "Too much at once",
    Category.UNAVAILABLE: "Something we depend on does not answer",
    Category.UNKNOWN_OUTCOME: "The outcome is not known yet",
    Category.CORRUPT: "What is stored cannot be read",
    Category.MISCONFIGURED: "The service is set up wrongly",
    Category.DEFECT: "Something on our side is broken",
}
assert set(TITLES) == set(Category), "every category has its title"

STATUS_OF_CODE: Final[dict[str, int]] = {
    # Codes for which HTTP has a status of its own, more exact than their category's.
    "BODY_TOO_LARGE": 413,
    "BODY_TOO_SLOW": 408,
    "BODY_ENCODED": 415,
    "URI_TOO_LONG": 414,
    "NOT_OUR_HOST": 421,
    "BODY_TYPE": 415,
    "VERSION_MISMATCH": 412,
    "IDEMPOTENCY_KEY_REUSED": 422,
    "IF_MATCH_MISSING": 428,
    "DEADLINE_EXCEEDED": 504,
    "JOB_TIMEOUT": 504,
}
UNREAD_BODY: Final = frozenset(
    {
        "BODY_TOO_LARGE",
        "BODY_TOO_SLOW",
        "BODY_BROKEN",
        "BODY_ENCODED",
        "BAD_FRAMING",
        "BAD_HOST",
        "NOT_OUR_HOST",
    }
)
CODE_OF_STATUS: Final[dict[int, str]] = {404: "NO_SUCH_ROUTE", 405: "METHOD_NOT_ALLOWED"}


class Challenged(TickgateError):
    """An error that tells the caller how to authenticate. challenge: the WWW-Authenticate header."""

    def __init__(self, error: TickgateError, challenge: str) -> None:
        super().__init__(error.public, code=error.code, detail=error.detail)
        self.error = error
        self.challenge = challenge


class Limited(RateLimited):
    """Called too often. retry_after_s: until there is room again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too many requests; try again later")
        self.retry_after_s = retry_after_s


class Unfit(Invalid):
    """Parameters that do not fit. problems: parameter name to what is wrong with it."""

    def __init__(self, code: str, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()), code=code)
        self.problems = problems


def problem(report: ErrorReport, error: BaseException | None = None) -> Response:
    """Answer an error that has been reported. error: where headers or parameter names come from."""
    status = STATUS_OF_CODE.get(report.code, HANDLING[report.category].http_status)
    body: dict[str, Any] = {"detail": report.public}
    if report.category is Category.DEFECT and report.fingerprint:
        body["fingerprint"] = report.fingerprint
    if isinstance(error, Unfit):
        body["errors"] = [{"parameter": name, "problem": text} for name, text in error.problems.items()]
    headers = {}
    if isinstance(error, Challenged):
        headers["WWW-Authenticate"] = error.challenge
    if report.code in UNREAD_BODY:
        # What is left of the body must not be taken for the next request.
        headers["Connection"] = "close"
    if HANDLING[report.category].retry is Retry.LATER:
        headers["Retry-After"] = str(error.retry_after_s if isinstance(error, Limited) else RETRY_AFTER_S)
    return _response(status, TITLES[report.category], report.code, body, headers)


def http_problem(error: HTTPException) -> Response:
    """Answer what the router refuses: no such path, or not with this method."""
    code = CODE_OF_STATUS.get(error.status_code, f"HTTP_{error.status_code}")
    body = {"detail": f"{error.detail}; GET / says where the documentation is"}
    return _response(error.status_code, error.detail, code, body, dict(error.headers or {}))


def _response(
    status: int, title: str, code: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> Response:
    trace = tracing.CURRENT.get()
    content = {
        "type": f"urn:tickgate:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        **body,
        "trace_id": trace.trace_id if trace else None,
    }
    return Response(msgspec.json.encode(content), status, headers, CONTENT_TYPE)
