"""Who is asking, once that has been established."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. expires_at_s: UTC epoch seconds after which this is no longer true."""

    subject: str
    tenant: str
    scopes: frozenset[str]
    expires_at_s: int
