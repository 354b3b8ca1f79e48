"""Certify what the tick store holds, over all sources the ledger knows."""

from collections.abc import Sequence

from core.errors.exceptions import NotFound
from core.infrastructure.central_hub import open_hub
from core.market.completeness import certify
from core.messages.certificates import Certificate
from core.settings import Settings


async def certificates(settings: Settings, source: str | None, day: int | None) -> Sequence[Certificate]:
    """Return a certificate for every epoch of `source`, or of every source there is.

    The names come from the ledger as well as the store: a source whose ticks are all lost is still asked for.

    Raises:
        NotFound: no such source. Unavailable: ledger or store do not answer.
    """
    async with open_hub(settings, {"postgres", "sources", "certifier"}) as hub:
        async with hub["postgres"].acquire() as connection:
            known = {row["name"] for row in await connection.fetch("select name from sources")}
        known |= set(await hub["certifier"].sources())
        if source is not None and source not in known:
            names = ", ".join(sorted(known)) or "none yet"
            raise NotFound(f"no source is named {source!r}; there are: {names}")
        names_wanted = [source] if source is not None else sorted(known)
        return await certify(hub["certifier"], hub["sources"], names_wanted, day)
