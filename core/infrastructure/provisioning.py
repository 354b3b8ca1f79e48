"""Put API clients and sources into the ledger: what `tickgate up` does once for its demo tenant."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from core.infrastructure.central_hub import open_hub
from core.settings import Secret, Settings


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
    """Create or refresh `clients` and `sources`. Raises: Unavailable."""
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
            await connection.execute(
                "insert into sources (name, tenant, token_hash) values ($1, $2, $3)"
                " on conflict (name) do update set tenant = excluded.tenant, token_hash = excluded.token_hash",
                source.name,
                source.tenant,
                _hash(source.token),
            )


def _hash(secret: Secret) -> str:
    return hashlib.sha256(secret.reveal().encode()).hexdigest()
