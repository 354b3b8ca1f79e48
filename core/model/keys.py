"""API keys: what a key looks like, and how a new one is made.

`tgk_<prefix>_<secret>`: by the prefix, 12 letters and digits, it is found; the secret, 256 random bits in base64url,
is compared. Only the SHA-256 of the whole text is stored: against 256 random bits a slow hash gains nothing.
"""

import hashlib
import re
import secrets
import string
import time
import uuid
from dataclasses import dataclass, field
from typing import Final

PREFIX_LENGTH: Final = 12
SECRET_BYTES: Final = 32
MARK: Final = "tgk_"
"""What every key begins with, so that a scanner finds one in a repository or a log."""
TEXT_LENGTH: Final = 60
LIFE_S_MAX: Final = 366 * 86_400
GRACE_MINUTES_MAX: Final = 24 * 60
NAME_LENGTH_MAX: Final = 100
_ALPHABET: Final = string.ascii_letters + string.digits
_TEXT: Final = re.compile(rf"{MARK}([0-9A-Za-z]{{{PREFIX_LENGTH}}})_[0-9A-Za-z_-]{{43}}")
_UUID7_VERSION: Final = 0x7000
_UUID_VARIANT: Final = 0x8000_0000_0000_0000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySecret:
    """A key's text in its two stored parts. text: empty once it has been given away, and never shown."""

    prefix: str
    sha256: bytes = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as its tenant may see it. parent: the key it was made with."""

    id: str
    tenant: str
    owner_kind: str
    subject: str
    parent: str | None
    name: str
    scopes: frozenset[str]
    prefix: str
    created_at_ms: int
    rotated_at_ms: int | None
    expires_at_ms: int
    last_used_at_ms: int | None
    revoked_at_ms: int | None


def new_secret() -> KeySecret:
    """Return a key's text that nobody has had before."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(PREFIX_LENGTH))
    text = f"{MARK}{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return KeySecret(prefix=prefix, sha256=hash_of(text), text=text)


def prefix_of(text: str) -> str | None:
    """Return the prefix of a key's text, or None where it is none."""
    found = _TEXT.fullmatch(text) if len(text) == TEXT_LENGTH else None
    return found[1] if found else None


def hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def new_id() -> str:
    """Return a UUID that sorts by when it was made. Source: RFC 9562, version 7."""
    high = (time.time_ns() // 1_000_000 << 16) | _UUID7_VERSION | secrets.randbits(12)
    return str(uuid.UUID(int=(high << 64) | _UUID_VARIANT | secrets.randbits(62)))


def is_id(text: str) -> bool:
    """Tell whether `text` is an id as we write it."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
