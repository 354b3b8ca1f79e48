"""The ErrorDNA category table: every kind of failure, its HTTP status, its retry rule and who acts next."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Category(StrEnum):
    """A failure is classed by what its reader does next, never by words in its message."""

    INVALID = "INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    DENIED = "DENIED"
    REJECTED = "REJECTED"
    RATE_LIMITED = "RATE_LIMITED"
    UNAVAILABLE = "UNAVAILABLE"
    UNKNOWN_OUTCOME = "UNKNOWN_OUTCOME"
    CORRUPT = "CORRUPT"
    MISCONFIGURED = "MISCONFIGURED"
    DEFECT = "DEFECT"


class Retry(StrEnum):
    """May the same thing be tried again without a person looking first?"""

    NEVER = "NEVER"
    LATER = "LATER"
    RECONCILE_FIRST = "RECONCILE_FIRST"


class Actor(StrEnum):
    """Who acts next."""

    CALLER = "CALLER"
    SYSTEM = "SYSTEM"
    OPERATOR = "OPERATOR"
    DEVELOPER = "DEVELOPER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """What follows from a category. `page` means a person must look, so it is logged at ERROR."""

    http_status: int
    retry: Retry
    actor: Actor
    page: bool


HANDLING: Final[dict[Category, Handling]] = {
    Category.INVALID: Handling(http_status=400, retry=Retry.NEVER, actor=Actor.CALLER, page=False),
    Category.UNAUTHORIZED: Handling(http_status=401, retry=Retry.NEVER, actor=Actor.CALLER, page=False),
    Category.FORBIDDEN: Handling(http_status=403, retry=Retry.NEVER, actor=Actor.CALLER, page=False),
    Category.NOT_FOUND: Handling(http_status=404, retry=Retry.NEVER, actor=Actor.CALLER, page=False),
    Category.CONFLICT: Handling(http_status=409, retry=Retry.NEVER, actor=Actor.CALLER, page=False),
    Category.DENIED: Handling(http_status=422, retry=Retry.NEVER, actor=Actor.CALLER, page=False),
    Category.REJECTED: Handling(http_status=422, retry=Retry.NEVER, actor=Actor.CALLER, page=False),
    Category.RATE_LIMITED: Handling(http_status=429, retry=Retry.LATER, actor=Actor.CALLER, page=False),
    Category.UNAVAILABLE: Handling(http_status=503, retry=Retry.LATER, actor=Actor.SYSTEM, page=False),
    Category.UNKNOWN_OUTCOME: Handling(
        http_status=502, retry=Retry.RECONCILE_FIRST, actor=Actor.SYSTEM, page=True
    ),
    Category.CORRUPT: Handling(http_status=500, retry=Retry.NEVER, actor=Actor.OPERATOR, page=True),
    Category.MISCONFIGURED: Handling(http_status=500, retry=Retry.NEVER, actor=Actor.OPERATOR, page=True),
    Category.DEFECT: Handling(http_status=500, retry=Retry.NEVER, actor=Actor.DEVELOPER, page=True),
}
assert set(HANDLING) == set(Category), "every category has its handling"
