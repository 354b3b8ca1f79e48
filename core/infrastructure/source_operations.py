"""What an operator does with tenants' sources from the command line, without any credential of its own."""

import re
from collections.abc import Sequence
from typing import Final

from core.errors.exceptions import Invalid
from core.infrastructure.central_hub import open_hub
from core.model.sources import (
    EVER_MAX,
    LABEL_PATTERN,
    TITLE_LENGTH_MAX,
    TITLE_PATTERN,
    SourceState,
    new_token,
)
from core.settings import Secret, Settings

NEEDS: Final = frozenset({"tenant_sources", "api_keys"})
_LABEL: Final = re.compile(LABEL_PATTERN)
_TITLE: Final = re.compile(TITLE_PATTERN)


async def add(settings: Settings, tenant: str, label: str, title: str) -> tuple[SourceState, Secret]:
    """Make a source and return it with its token, which is kept nowhere. Raises: Invalid, Conflict, Unavailable."""
    if not _LABEL.fullmatch(label):
        raise Invalid(
            "a label is lower-case letters, digits, dots, dashes and underscores, at most 40",
            code="BAD_ARGUMENTS",
        )
    if len(title) > TITLE_LENGTH_MAX or not _TITLE.fullmatch(title):
        raise Invalid(f"a title is at most {TITLE_LENGTH_MAX} characters on one line", code="BAD_ARGUMENTS")
    token = new_token()
    async with open_hub(settings, NEEDS) as hub, hub["api_keys"].work(tenant) as work:
        state: SourceState = await hub["tenant_sources"].create(work, label, title, token)
    return state, Secret(token.text)


async def listed(settings: Settings, tenant: str) -> Sequence[SourceState]:
    """Return a tenant's sources, closed ones too. Raises: Unavailable."""
    async with open_hub(settings, {"tenant_sources"}) as hub:
        # No tenant ever has more, so one page is all of them.
        found: Sequence[SourceState] = await hub["tenant_sources"].page(tenant, after=None, limit=EVER_MAX)
    return found


async def rotate(settings: Settings, tenant: str, name: str) -> tuple[SourceState, Secret]:
    """Give a source another token and return both. Raises: NotFound, Conflict (code SOURCE_CLOSED), Unavailable."""
    token = new_token()
    async with open_hub(settings, NEEDS) as hub, hub["api_keys"].work(tenant) as work:
        state: SourceState = await hub["tenant_sources"].rotate(work, name, token)
    return state, Secret(token.text)


async def close(settings: Settings, tenant: str, name: str) -> None:
    """Let nobody write a source any more. Raises: NotFound, Unavailable."""
    async with open_hub(settings, {"tenant_sources"}) as hub:
        await hub["tenant_sources"].close(tenant, name)
