"""Which sources a tenant's question is about."""

from collections.abc import Sequence

from core.errors.exceptions import NotFound
from core.ports.ticks import SourceRegistry


async def owned_sources(registry: SourceRegistry, tenant: str, wanted: str | None) -> Sequence[str]:
    """Return the tenant's sources, or the one it asks for. Raises: NotFound: that is not the tenant's. Unavailable."""
    return chosen(await registry.sources_of(tenant), wanted)


def chosen(owned: Sequence[str], wanted: str | None) -> Sequence[str]:
    """Return all that is owned, or the one that is asked for. Raises: NotFound: it is not among them."""
    if wanted is None:
        return owned
    if wanted not in owned:
        raise NotFound(f"no source is named {wanted!r}", code="SOURCE_NOT_FOUND")
    return [wanted]
