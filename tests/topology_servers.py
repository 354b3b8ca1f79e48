"""Where the topology can be kept: in PostgreSQL, in ArangoDB's double, and in the real ArangoDB."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from core.settings import Settings


@dataclass(frozen=True)
class Place:
    """at: changes settings so that the hub opens the keeper of this place, with its schema brought forward."""

    name: str
    at: Callable[[Settings], AbstractAsyncContextManager[Settings]]


@contextlib.asynccontextmanager
async def in_postgres(settings: Settings) -> AsyncIterator[Settings]:
    yield settings


PLACES: list[Place] = [Place(name="postgres", at=in_postgres)]
