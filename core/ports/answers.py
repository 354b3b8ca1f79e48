"""Answers too large for one message."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class AnswerWriter(Protocol):
    """A worker's end of an answer stream."""

    async def write(self, data: bytes) -> None:
        """Pass `data` on, waiting while the reader has enough. Raises: Unavailable."""

    async def end(self) -> None:
        """Say that the answer is complete. Raises: Unavailable."""

    async def abandoned(self) -> None:
        """Return once nobody reads any more."""


class AnswerStreams(Protocol):
    """Answers too large for one message, passed from a worker to a gateway at the reader's pace."""

    def writing(self, stream: str) -> AbstractAsyncContextManager[AnswerWriter]:
        """Open the writer's end, once and never again. Leaving it without `end` breaks the answer.

        Raises: Unavailable: somebody has begun to write it before, or the queue does not answer.
        """

    def reading(self, stream: str) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        """Open the reader's end and give the answer's chunks; leaving it early stops the writer.

        The generator raises: Unavailable (code ANSWER_BROKEN): the writer has gone without `end`.
        """
