"""Who is asking, once that has been established, and what they may be allowed."""

from dataclasses import dataclass
from enum import StrEnum


class PrincipalKind(StrEnum):
    """What sort of caller it is. USER: a human, known to an external OpenID provider."""

    USER = "user"
    CLIENT = "client"
    CONNECTOR = "connector"
    SERVICE = "service"


class Scope(StrEnum):
    """What a token or key may allow. Every route names one, see the gateway's route catalogue."""

    MARKET_READ = "market:read"
    ACCOUNTS_READ = "accounts:read"
    ACCOUNTS_WRITE = "accounts:write"
    MARKET_WRITE = "market:write"
    ORDERS_READ = "orders:read"
    ORDERS_WRITE = "orders:write"
    ORDERS_APPROVE = "orders:approve"
    AUDIT_READ = "audit:read"
    RISK_ADMIN = "risk:admin"
    INCIDENTS_READ = "incidents:read"
    INCIDENTS_WRITE = "incidents:write"
    TOPOLOGY_READ = "topology:read"
    TOPOLOGY_WRITE = "topology:write"
    HEALTH_READ = "health:read"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    DEAD_LETTERS_READ = "dead-letters:read"
    DEAD_LETTERS_WRITE = "dead-letters:write"
    QUEUES_READ = "queues:read"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    SOURCES_READ = "sources:read"
    SOURCES_WRITE = "sources:write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller.

    subject: unique within its kind. credential: the token's or key's id, by which it can be revoked.
    expires_at_s: UTC epoch seconds after which this is no longer true.
    """

    subject: str
    tenant: str
    scopes: frozenset[str]
    expires_at_s: int
    kind: PrincipalKind = PrincipalKind.CLIENT
    credential: str = ""

    @property
    def actor(self) -> str:
        """What is written down of who did something."""
        return f"{self.kind}:{self.subject}"
