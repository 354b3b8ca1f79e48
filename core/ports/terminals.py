"""The way of an order to a terminal, as the bridge sees it: take commands out, put replies in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from core.messages.terminal_orders import RelayedCommand


class SourceSecrets(Protocol):
    """What tells a source's answers from those of others."""

    async def token_hash(self, source: str) -> str:
        """Return the SHA-256 of the source's token, hexadecimal. Raises: NotFound, Unavailable."""


class TerminalRelay(Protocol):
    """One bridge's end. Commands that are taken are there no more: whoever took them answers for them."""

    async def announce(self, sources: Collection[str]) -> None:
        """Say that commands for these sources are taken here, for the next seconds. Raises: Unavailable."""

    async def take(self) -> Sequence[RelayedCommand]:
        """Wait a while for commands and take them; none is an answer, too. Raises: Unavailable."""

    async def answer(self, reply_to: str, reply: bytes) -> None:
        """Give who asked the reply, encoded and sealed. Raises: Unavailable."""
