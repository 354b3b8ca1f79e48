"""Refresh tokens: `tgr_` and 256 random bits in base64url, of which only the SHA-256 is stored."""

import hashlib
import re
import secrets
from typing import Final

MARK: Final = "tgr_"
"""What every refresh token begins with, so that a scanner finds one in a repository or a log."""
SECRET_BYTES: Final = 32
_TEXT: Final = re.compile(rf"{MARK}[0-9A-Za-z_-]{{43}}", re.ASCII)


def new_text() -> str:
    """Return a refresh token nobody has had before."""
    return MARK + secrets.token_urlsafe(SECRET_BYTES)


def hash_of(text: str) -> bytes | None:
    """Return what a refresh token is found by, or None where the text is none."""
    return hashlib.sha256(text.encode()).digest() if _TEXT.fullmatch(text) else None
