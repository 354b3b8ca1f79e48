"""Read a token's text as strictly as it can be read, before any of it is believed.

A token has one spelling: three canonical Base64url parts, JSON without duplicate names, NaN or Infinity. What two
readers could understand differently is refused. Source: RFC 8725 section 3.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

TOKEN_BYTES_MAX: Final = 4_096
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


class Unreadable(ValueError):
    """It is no token. The text says which rule it breaks; it never holds a part of the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """What a token says about itself; nothing of it is true until its signature has been verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]


def read(token: str) -> UnverifiedToken:
    """Take a compact JWS apart. Raises: Unreadable."""
    if len(token) > TOKEN_BYTES_MAX:
        raise Unreadable("too long")
    if not _COMPACT.fullmatch(token):
        raise Unreadable("not three Base64url parts")
    header, claims, signature = token.split(".")
    _decoded(signature)
    return UnverifiedToken(header=_members(header), claims=_members(claims))


def _decoded(part: str) -> bytes:
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as e:
        raise Unreadable("not Base64url") from e
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        # Spare bits that are not zero: another spelling of the same bytes.
        raise Unreadable("not canonical Base64url")
    return decoded


def _members(part: str) -> Mapping[str, Any]:
    try:
        members = json.loads(
            _decoded(part).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except Unreadable:
        raise
    except (ValueError, RecursionError) as e:
        raise Unreadable("not JSON") from e
    if not isinstance(members, dict):
        raise Unreadable("not a JSON object")
    return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable("a name is given twice")
    return members


def _refuse_constant(_name: str) -> Any:
    raise Unreadable("not a JSON number")
