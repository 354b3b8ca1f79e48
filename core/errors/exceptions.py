"""Errors raised on purpose, each with its category, a stable code and two texts."""

from typing import ClassVar

from core.errors.categories import Category


class TickgateError(Exception):
    """The root of every error raised on purpose.

    public: the sentence the caller may read; carries no secret and no internal name.
    detail: what we want to know as well; only logged. Never repeats `__cause__`.
    code: stable and upper case; add one only where a caller would act differently.
    """

    category: ClassVar[Category] = Category.DEFECT
    default_code: ClassVar[str] = "DEFECT"

    def __init__(self, public: str, *, code: str | None = None, detail: str = "") -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        self.code = code or self.default_code

    def __str__(self) -> str:
        return f"{self.code}: {self.public}" + (f" ({self.detail})" if self.detail else "")


class Invalid(TickgateError):
    """What was asked makes no sense as written."""

    category = Category.INVALID
    default_code = "INVALID_REQUEST"


class Unauthorized(TickgateError):
    """We do not know who is asking."""

    category = Category.UNAUTHORIZED
    default_code = "UNAUTHORIZED"


class Forbidden(TickgateError):
    """We know who is asking, and they may not."""

    category = Category.FORBIDDEN
    default_code = "FORBIDDEN"


class NotFound(TickgateError):
    """There is no such thing, or it belongs to somebody else."""

    category = Category.NOT_FOUND
    default_code = "NOT_FOUND"


class Conflict(TickgateError):
    """Somebody else holds or changed it."""

    category = Category.CONFLICT
    default_code = "CONFLICT"


class Denied(TickgateError):
    """Our own risk checks forbid it."""

    category = Category.DENIED
    default_code = "DENIED"


class RateLimited(TickgateError):
    """Too much at once; the same request may succeed later."""

    category = Category.RATE_LIMITED
    default_code = "RATE_LIMITED"


class Unavailable(TickgateError):
    """Something we depend on does not answer; nothing was done."""

    category = Category.UNAVAILABLE
    default_code = "UNAVAILABLE"


class UnknownOutcome(TickgateError):
    """It was sent and no answer came: look before doing anything again."""

    category = Category.UNKNOWN_OUTCOME
    default_code = "UNKNOWN_OUTCOME"


class Corrupt(TickgateError):
    """What was read cannot be what was written."""

    category = Category.CORRUPT
    default_code = "CORRUPT"


class Misconfigured(TickgateError):
    """It cannot start as it is set up; the text says what to change."""

    category = Category.MISCONFIGURED
    default_code = "MISCONFIGURED"


class Defect(TickgateError):
    """One of our own promises to ourselves is broken."""
