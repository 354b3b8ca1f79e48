"""Who may come in, with what, how often, and what is no longer good."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.model.keys import ApiKey, KeySecret
    from core.model.principals import Principal
    from core.model.rates import Rate, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiClient:
    """Who may ask for tokens. secret_hash: SHA-256 of a 256-bit random secret, hexadecimal."""

    client_id: str
    tenant: str
    secret_hash: str
    scopes: frozenset[str]


class Identity(Protocol):
    """Who may ask for what."""

    async def client(self, client_id: str) -> ApiClient | None:
        """Return the client, or None. Raises: Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecord:
    """An API client as its operator sees it."""

    client_id: str
    tenant: str
    scopes: frozenset[str]
    created_at_ms: int
    disabled_at_ms: int | None


class ClientRegistry(Protocol):
    """API clients as their operator keeps them; not bound to a tenant."""

    async def add(self, client: ApiClient) -> None:
        """Add a client. Raises: Conflict (code CLIENT_EXISTS), Unavailable."""

    async def clients(self) -> Sequence[ClientRecord]:
        """Return every client, by tenant and id. Raises: Unavailable."""

    async def disable(self, client_id: str) -> None:
        """Let the client in no more and end all it was ever given: tokens, refresh tokens and keys, at once.

        Raises: NotFound, Unavailable.
        """

    async def rotate_secret(self, client_id: str, secret_hash: str, *, revoke: bool) -> None:
        """Replace the client's secret. revoke: also end all it was given until now, as `disable` does.

        Raises: NotFound, Conflict (code CLIENT_DISABLED), Unavailable.
        """


class Revocations(Protocol):
    """Credentials that are no longer good. Every process knows them all by heart and is told of new ones at once."""

    def is_revoked(self, *credentials: str, issued_at_s: float) -> bool:
        """Tell whether any of `credentials` was revoked after it was issued; costs no round trip.

        credentials: `token:<jti>`, `family:<id>`, `key:<id>`, `client:<client id>`.
        Raises: Unavailable (code REVOCATIONS_STALE): what we know is too old to let anybody in.
        """

    async def revoke(self, credential: str, expires_at_s: float) -> None:
        """Revoke what was issued under this name until now. expires_at_s: when it would have ended by itself.

        Raises: Unavailable.
        """


class TokenVerifier(Protocol):
    """Turns a bearer token into who it speaks for."""

    async def verify(self, token: str) -> Principal:
        """Return the caller. It waits only where an external provider has to be asked for its keys.

        Raises: Unauthorized, Unavailable (code REVOCATIONS_STALE).
        """


class RefreshState(StrEnum):
    """What a refresh token is worth. REUSED: it was rotated before; somebody else has the one that replaced it."""

    GOOD = "good"
    REUSED = "reused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshGrant:
    """What a refresh token stands for. family: all that replaced each other since the client asked for the first."""

    family: str
    client_id: str
    scopes: frozenset[str]
    issued_at_s: int
    expires_at_s: int
    state: RefreshState


class Grants(Protocol):
    """Refresh tokens, of which only the SHA-256 is known. Those of another tenant are not found."""

    async def start(self, client: ApiClient, scopes: frozenset[str], family: str, token_hash: bytes) -> None:
        """Keep a first token. family: a new UUID. Raises: Unavailable."""

    async def find(self, tenant: str, token_hash: bytes) -> RefreshGrant | None:
        """Return what the token stands for, or None. Raises: Unavailable."""

    async def rotate(self, client: ApiClient, token_hash: bytes, new_hash: bytes) -> RefreshState:
        """Replace a token that is GOOD, and tell what it was. Of any number of tries at once one finds it GOOD.

        Raises: Unavailable.
        """

    async def revoke(self, tenant: str, family: str) -> None:
        """End the family: its refresh tokens, and every access token issued from it, in all processes.

        Raises: Unavailable.
        """

    async def purge_expired(self) -> int:
        """Forget the families whose time is over and return how many there were. Raises: Unavailable."""


class Work(Protocol):
    """An open transaction that acts for one tenant. What belongs together is done within one `Work`."""

    @property
    def tenant(self) -> str:
        """Whose rows it sees and writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key to be made. expires_at_s: UTC epoch seconds; parent: id of the key it is made with."""

    owner_kind: str
    subject: str
    name: str
    scopes: frozenset[str]
    expires_at_s: float
    parent: str | None = None


class ApiKeys(Protocol):
    """API keys: verified from memory, kept per tenant. Ids of another tenant are not found."""

    async def verify(self, text: str) -> Principal:
        """Return who the key's text speaks for. Its scopes are the key's that its owner still has.

        Costs a look-up once a minute, else about a microsecond. Raises: Unauthorized, Unavailable.
        """

    def work(self, tenant: str) -> AbstractAsyncContextManager[Work]:
        """Open a transaction for `tenant`; it commits when left without an error. Raises: Unavailable."""

    async def page(self, tenant: str, *, after: str | None, limit: int) -> Sequence[ApiKey]:
        """Return keys in the order they were made, revoked and expired ones too. Raises: Unavailable."""

    async def create(self, work: Work, new: NewKey, secret: KeySecret) -> ApiKey:
        """Store a new key. Raises: Unavailable."""

    async def key(self, work: Work, key_id: str) -> ApiKey:
        """Return a key and hold it until the work is done. Raises: NotFound, Unavailable."""

    async def rotate(self, work: Work, key_id: str, secret: KeySecret, grace_s: int) -> ApiKey:
        """Give a key a new secret. The one before stays good for `grace_s`, 0 or at least 60; older ones do not.

        Raises: NotFound, Conflict (code KEY_ENDED) when it is revoked or has expired, Unavailable.
        """

    async def revoke(self, tenant: str, key_id: str) -> None:
        """Revoke a key and every key made with it, in all processes; again is no error.

        Raises: NotFound, Unavailable.
        """

    async def tenant_of(self, key_id: str) -> str:
        """Return whose key this is; for operators. Raises: NotFound, Unavailable."""


class RateLimiter(Protocol):
    """Counts what callers do, for all processes together."""

    def try_take(self, caller: str, rates: Sequence[Rate]) -> Verdict | None:
        """Count one within all of `rates`, or refuse; None when that takes asking elsewhere, with `take`.

        caller: any text that names whom it counts for; only its hash leaves the process.
        """

    async def take(self, caller: str, rates: Sequence[Rate]) -> Verdict:
        """As `try_take`, and ask if need be: for a moment at most, whatever is down."""
