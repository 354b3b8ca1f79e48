"""Requests that are done once however often they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from core.ports.access import Work

KEY_CODES: Final = frozenset({"IDEMPOTENCY_KEY_IN_USE", "IDEMPOTENCY_KEY_REUSED"})
"""What a request is refused with because of its key alone."""


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


class AnsweredBefore(Exception):
    """The request was done before."""

    def __init__(self, answer: StoredAnswer) -> None:
        super().__init__("this request was answered before")
        self.answer = answer


class Claim(Protocol):
    """The right to do one request, for as long as its lease."""

    async def complete(self, answer: StoredAnswer) -> None:
        """Keep the final answer. Raises: Unavailable."""

    async def release(self) -> None:
        """Give the claim up, so that the request can be tried again at once. Raises: Unavailable."""


class AnsweredWork(Work, Protocol):
    """A transaction in which a request is done, and which ends with its answer."""

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

    def work(self, request: IdempotentRequest) -> AbstractAsyncContextManager[AnsweredWork]:
        """Open a transaction in which the request is done and answered, both or neither.

        Raises:
            AnsweredBefore: with that answer.
            Conflict, Invalid, Unavailable: as `claim` does.
        """

    async def purge_expired(self) -> int:
        """Forget the keys whose time is over and return how many there were. Raises: Unavailable."""
