"""Put API clients, keys and sources into the ledger: what `tickgate up` does once, and what its operator asks for."""

import hashlib
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from core.errors.exceptions import Conflict, Forbidden, NotFound
from core.infrastructure.central_hub import open_hub
from core.model.keys import ApiKey, is_id, new_secret
from core.model.principals import PrincipalKind
from core.ports.access import ApiClient, ApiKeys, ClientRecord, NewKey
from core.settings import Secret, Settings

SECRET_BYTES: Final = 32
KEYS_LISTED_MAX: Final = 100_000
PAGE_KEYS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClient:
    """An API client to provision. secret: 256 bits or more from a random source; only its hash is kept."""

    client_id: str
    secret: Secret
    tenant: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSource:
    """A source to provision, with the token its connector will show."""

    name: str
    token: Secret
    tenant: str


async def provision(settings: Settings, clients: Sequence[NewClient], sources: Sequence[NewSource]) -> None:
    """Create or refresh `clients` and `sources`.

    A source that its tenant has closed stays closed. Raises: Conflict (code SOURCE_EXISTS), Unavailable.
    """
    async with open_hub(settings, {"postgres"}) as hub, hub["postgres"].acquire() as connection:
        for client in clients:
            await connection.execute(
                "insert into api_clients (client_id, tenant, secret_hash, scopes) values ($1, $2, $3, $4)"
                " on conflict (client_id) do update set tenant = excluded.tenant,"
                " secret_hash = excluded.secret_hash, scopes = excluded.scopes",
                client.client_id,
                client.tenant,
                _hash(client.secret),
                list(client.scopes),
            )
        for source in sources:
            # Never given to another tenant: all its ticks would go with it.
            kept = await connection.fetchval(
                "insert into sources (name, tenant, token_hash) values ($1, $2, $3)"
                " on conflict (name) do update set token_hash = excluded.token_hash"
                " where sources.tenant = excluded.tenant returning true",
                source.name,
                source.tenant,
                _hash(source.token),
            )
            if not kept:
                raise Conflict(
                    f"the source {source.name!r} is another tenant's already", code="SOURCE_EXISTS"
                )


async def add_client(settings: Settings, client_id: str, tenant: str, scopes: Collection[str]) -> Secret:
    """Add an API client and return its secret, which is kept nowhere. Raises: Conflict, Unavailable."""
    secret = Secret(secrets.token_urlsafe(SECRET_BYTES))
    client = ApiClient(
        client_id=client_id, tenant=tenant, secret_hash=_hash(secret), scopes=frozenset(scopes)
    )
    async with open_hub(settings, {"identity"}) as hub:
        await hub["identity"].add(client)
    return secret


async def list_clients(settings: Settings) -> Sequence[ClientRecord]:
    """Raises: Unavailable."""
    async with open_hub(settings, {"identity"}) as hub:
        found: Sequence[ClientRecord] = await hub["identity"].clients()
    return found


async def disable_client(settings: Settings, client_id: str) -> None:
    """Let a client in no more, and end its tokens, refresh tokens and keys. Raises: NotFound, Unavailable."""
    async with open_hub(settings, {"identity"}) as hub:
        await hub["identity"].disable(client_id)


async def rotate_client_secret(settings: Settings, client_id: str, *, revoke: bool) -> Secret:
    """Give a client a new secret. revoke: also end what it was given until now. Raises: NotFound, Unavailable."""
    secret = Secret(secrets.token_urlsafe(SECRET_BYTES))
    async with open_hub(settings, {"identity"}) as hub:
        await hub["identity"].rotate_secret(client_id, _hash(secret), revoke=revoke)
    return secret


async def add_key(
    settings: Settings, client_id: str, name: str, scopes: Collection[str], life_s: float
) -> tuple[ApiKey, Secret]:
    """Make an API key for a client. scopes: among the client's; none means all of them.

    Raises: NotFound, Forbidden, Conflict, Unavailable.
    """
    secret = new_secret()
    async with open_hub(settings, {"identity", "api_keys"}) as hub:
        client = await hub["identity"].client(client_id)
        if client is None:
            raise NotFound(f"there is no client {client_id!r}", code="CLIENT_NOT_FOUND")
        if beyond := sorted(set(scopes) - client.scopes):
            raise Forbidden(f"{client_id!r} does not have the scopes {', '.join(beyond)}")
        new = NewKey(
            owner_kind=PrincipalKind.CLIENT,
            subject=client_id,
            name=name,
            scopes=frozenset(scopes) or client.scopes,
            expires_at_s=time.time() + life_s,
        )
        async with hub["api_keys"].work(client.tenant) as work:
            key = await hub["api_keys"].create(work, new, secret)
    return key, Secret(secret.text)


async def list_keys(settings: Settings, tenant: str) -> Sequence[ApiKey]:
    """Return a tenant's keys, at most KEYS_LISTED_MAX. Raises: Unavailable."""
    found: list[ApiKey] = []
    async with open_hub(settings, {"api_keys"}) as hub:
        while len(found) < KEYS_LISTED_MAX:
            after = found[-1].id if found else None
            page = await hub["api_keys"].page(tenant, after=after, limit=PAGE_KEYS)
            found += page
            if len(page) < PAGE_KEYS:
                break
    return found


async def rotate_key(settings: Settings, key_id: str, grace_s: int) -> tuple[ApiKey, Secret]:
    """Give a key a new secret. Raises: NotFound, Conflict, Unavailable."""
    secret = new_secret()
    async with open_hub(settings, {"api_keys"}) as hub:
        tenant = await _tenant_of(hub["api_keys"], key_id)
        async with hub["api_keys"].work(tenant) as work:
            key = await hub["api_keys"].rotate(work, key_id, secret, grace_s)
    return key, Secret(secret.text)


async def revoke_key(settings: Settings, key_id: str) -> None:
    """Revoke a key and every key made with it. Raises: NotFound, Unavailable."""
    async with open_hub(settings, {"api_keys"}) as hub:
        await hub["api_keys"].revoke(await _tenant_of(hub["api_keys"], key_id), key_id)


async def _tenant_of(keys: ApiKeys, key_id: str) -> str:
    if not is_id(key_id):
        raise NotFound(f"there is no key {key_id!r}", code="KEY_NOT_FOUND")
    return await keys.tenant_of(key_id)


def _hash(secret: Secret) -> str:
    return hashlib.sha256(secret.reveal().encode()).hexdigest()
