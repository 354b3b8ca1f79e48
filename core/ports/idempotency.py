"""Requests that are done once however often they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from core.ports.access import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentRequest:
    """A request that must not be done twice. subject: who asks, with its kind; key: what the caller named it.

    fingerprint: SHA-256 of what is asked, so that the same key for something else is noticed.
    """

    tenant: str
    subject: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer as it will be given again."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Claim(Protocol):
    """The right to do one request, for as long as its lease."""

    def work(self) -> AbstractAsyncContextManager[ClaimedWork]:
        """Open a transaction for the claim's tenant in which the request is done and answered, both or neither.

        Raises: Conflict (code IDEMPOTENCY_LEASE_LOST) when somebody else has taken over, Unavailable.
        """

    async def complete(self, answer: StoredAnswer) -> None:
        """Keep the final answer of a request done outside `work`. Raises: Unavailable."""

    async def release(self) -> None:
        """Give the claim up, so that the request can be tried again at once. Raises: Unavailable."""


class ClaimedWork(Work, Protocol):
    """A transaction that ends with the request's answer."""

    async def answer(self, answer: StoredAnswer) -> None:
        """Keep the final answer within the transaction. Raises: Unavailable."""


class Idempotency(Protocol):
    """Requests that are done once however often they are sent."""

    async def claim(self, request: IdempotentRequest) -> Claim | StoredAnswer:
        """Return the right to do the request, or the answer it was given before.

        Raises:
            Conflict: it is being done right now (code IDEMPOTENCY_KEY_IN_USE).
            Invalid: the key was used for something else (code IDEMPOTENCY_KEY_REUSED).
            Unavailable.
        """

    async def purge_expired(self) -> int:
        """Forget the keys whose time is over and return how many there were. Raises: Unavailable."""
