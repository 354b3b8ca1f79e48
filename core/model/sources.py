"""Sources as their tenant keeps them: what one is called, the token its connector shows, and how it stands.

A source's name is its label and a random end, because names are one space for all tenants: nobody is told that a name
is taken, and none is ever given twice.
"""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final

LABEL_PATTERN: Final = "^[a-z0-9][a-z0-9._-]{0,39}$"
NAME_PATTERN: Final = "^[a-z0-9][a-z0-9._-]{0,62}$"
TITLE_PATTERN: Final = r"^[^\x00-\x1f\x7f]*$"
TITLE_LENGTH_MAX: Final = 120
OPEN_MAX: Final = 100
"""Of one tenant."""
EVER_MAX: Final = 1_000
"""Of one tenant, closed ones too: each of its reads names them all."""
MARK: Final = "tgs_"
"""What every token begins with, so that a scanner finds one in a repository or a log."""
TOKEN_BYTES: Final = 32
_ENDING: Final = "abcdefghijklmnopqrstuvwxyz234567"
_ENDING_LENGTH: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceToken:
    """A connector's token and what is stored of it. text: given away once, and never shown here."""

    sha256: str = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNotice:
    """What a connector said about its terminal."""

    code: str
    symbol: str
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """A source as its tenant may see it.

    connected: whether a bridge holds it for a connector. last_seen_at_ms: when one last did.
    epoch, install, epoch_started_at_ms: of the newest life of its spool, None before the first.
    last_seq: how far the connector's own tallies of that epoch tell of durable ticks, a little behind what is stored.
    """

    name: str
    title: str
    version: str
    created_at_ms: int
    updated_at_ms: int
    rotated_at_ms: int | None
    closed_at_ms: int | None
    connected: bool
    last_seen_at_ms: int | None
    epoch: int | None
    install: str | None
    epoch_started_at_ms: int | None
    last_seq: int | None
    last_notice: SourceNotice | None


def new_token() -> SourceToken:
    """Return a token that nobody has had before: 256 random bits."""
    text = MARK + secrets.token_urlsafe(TOKEN_BYTES)
    return SourceToken(sha256=hashlib.sha256(text.encode()).hexdigest(), text=text)


def new_name(label: str) -> str:
    """Return a name that begins with `label` and that nobody can foresee: 60 random bits."""
    return f"{label}-{''.join(secrets.choice(_ENDING) for _ in range(_ENDING_LENGTH))}"
