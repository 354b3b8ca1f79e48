"""What the claims of an access token must be, member by member and type by type. Source: RFC 9068, RFC 8725."""

from collections.abc import Mapping
from typing import Any, Final

CLOCK_LEEWAY_S: Final = 5
TEXT_LENGTH_MAX: Final = 200
TIME_S_MAX: Final = 2**53


class Refused(ValueError):
    """A claim is not as it must be. The text is the claim's name."""


def text(claims: Mapping[str, Any], name: str) -> str:
    """Return a claim that is a printable text. Raises: Refused."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_LENGTH_MAX or not value.isprintable():
        raise Refused(name)
    return value


def moment(claims: Mapping[str, Any], name: str) -> int:
    """Return a claim that is a moment in whole seconds. Raises: Refused."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= TIME_S_MAX:
        raise Refused(name)
    return value


def check_times(claims: Mapping[str, Any], now_s: float, life_s_max: int) -> tuple[int, int]:
    """Return when it was issued and when it ends. Raises: Refused: not valid now, or for longer than it may be."""
    issued_at_s, expires_at_s = moment(claims, "iat"), moment(claims, "exp")
    if issued_at_s > now_s + CLOCK_LEEWAY_S:
        raise Refused("iat")
    if expires_at_s <= now_s - CLOCK_LEEWAY_S or not 0 < expires_at_s - issued_at_s <= life_s_max:
        raise Refused("exp")
    if "nbf" in claims and moment(claims, "nbf") > now_s + CLOCK_LEEWAY_S:
        raise Refused("nbf")
    return issued_at_s, expires_at_s


def scopes(claims: Mapping[str, Any], name: str = "scope") -> frozenset[str]:
    """Return the scopes; an empty text is none. Raises: Refused."""
    value = claims.get(name)
    if not isinstance(value, str):
        raise Refused(name)
    return frozenset(value.split(" ")) - {""}
