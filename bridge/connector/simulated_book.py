"""What the simulated broker holds, in a file that outlives every process: the truth tests compare with."""

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from bridge.connector.trades import MadeDeal, OpenPosition, PlacedOrder

STATE_FILE: Final = "broker.json"
HISTORY_MAX: Final = 20_000
FIRST_TICKET: Final = 1_000


class Book(msgspec.Struct, kw_only=True):
    """One account. executions: how often an order with this comment was taken, whoever heard of it.

    checked_ms: pending orders and stops have met every quote up to here, server clock.
    """

    balance: float
    next_ticket: int = FIRST_TICKET
    orders: list[PlacedOrder] = []
    ended: list[PlacedOrder] = []
    positions: list[OpenPosition] = []
    deals: list[MadeDeal] = []
    executions: dict[str, int] = {}
    checked_ms: int = 0

    def ticket(self) -> int:
        number = self.next_ticket
        self.next_ticket += 1
        return number

    def end(self, order: PlacedOrder, **changes: Any) -> PlacedOrder:
        """Move an order to the history, as it is after `changes`."""
        over = msgspec.structs.replace(order, **changes)
        self.orders = [one for one in self.orders if one.ticket != order.ticket]
        self.ended = [*self.ended, over][-HISTORY_MAX:]
        return over

    def position(self, ticket: int) -> OpenPosition | None:
        """Return an open position."""
        return next((one for one in self.positions if one.ticket == ticket), None)

    def put(self, position: OpenPosition) -> None:
        """Add a position, or replace the one with its ticket; one without volume is gone."""
        others = [one for one in self.positions if one.ticket != position.ticket]
        self.positions = [*others, position] if position.volume else others


def load_book(directory: Path, balance: float) -> Book:
    """Return what is kept in `directory`, or a new account."""
    try:
        return msgspec.json.decode((directory / STATE_FILE).read_bytes(), type=Book)
    except FileNotFoundError:
        return Book(balance=balance)


def save_book(directory: Path, book: Book) -> None:
    """Keep the book: whole or not at all, whenever the process is killed."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / STATE_FILE
    partial = path.with_suffix(".new")
    partial.write_bytes(msgspec.json.encode(book))
    os.replace(partial, path)
