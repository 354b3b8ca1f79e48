"""The ledger of trading: orders and all that follows from them. What belongs together is written within one `Work`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from decimal import Decimal

    from core.model.ledger import (
        Break,
        Command,
        DeskFacts,
        Fill,
        Holding,
        Listing,
        OrderEntry,
        OrderEvent,
        OutboxRow,
        Standing,
    )
    from core.model.orders import Order, OrderState
    from core.model.venues import Deal, OrderChange, TradingAccount
    from core.ports.access import Work


class OrderDesk(Protocol):
    """Where orders come in."""

    async def listing(self, work: Work, account: str, symbol: str) -> Listing:
        """Return what is known of both; nothing is locked. Raises: NotFound (code ACCOUNT_NOT_FOUND), Unavailable."""

    async def facts(self, work: Work, order: Order, account: TradingAccount, window_ms: int) -> DeskFacts:
        """Lock the account until the work ends, and return how it stands. window_ms: of duplicates.

        Raises: Unavailable.
        """

    async def add(self, work: Work, entry: OrderEntry) -> OrderEntry:
        """Keep a new order, QUEUED with its sending still to be done, or DENIED. Raises: Unavailable."""


class OrderLedger(OrderDesk, Protocol):
    """Where orders are moved on. Whoever moves one holds its account's lock until the work ends."""

    def work(self, tenant: str, *, holding_risk: bool = False) -> AbstractAsyncContextManager[Work]:
        """Open a transaction for the tenant; it commits when left without an error. Raises: Unavailable.

        holding_risk: as `RiskBook.hold` does, without asking the ledger for that alone.
        """

    def operators_work(self) -> AbstractAsyncContextManager[Work]:
        """Open one for what belongs to no tenant; never for a caller. Raises: Unavailable."""

    async def now_ms(self, work: Work) -> int:
        """Return the clock all times here are told by. Raises: Unavailable."""

    async def lock_account(self, work: Work, account: str) -> Standing:
        """Lock an account until the work ends. Raises: NotFound (code ACCOUNT_NOT_FOUND), Unavailable."""

    async def found(self, work: Work, order_id: str) -> OrderEntry:
        """Return an order; nothing is locked. Raises: NotFound (code ORDER_NOT_FOUND), Unavailable."""

    async def locked(self, work: Work, order_id: str) -> OrderEntry:
        """Lock an order's account and return the order. Raises: NotFound (code ORDER_NOT_FOUND), Unavailable."""

    async def move(
        self,
        work: Work,
        entry: OrderEntry,
        state: OrderState,
        *,
        what: str,
        detail: Mapping[str, Any] | None = None,
        done: Command | None = None,
        **changes: Any,
    ) -> OrderEntry:
        """Move a locked order on and write down that it was. changes: fields of the entry and of its order.

        done: what need not be done about it any more.

        Raises: Defect: the move is not legal, or the order was changed beside us. Unavailable.
        """

    async def put(
        self, work: Work, entry: OrderEntry, command: Command, change: OrderChange | None = None
    ) -> None:
        """Note what is to be done about an order. Raises: Unavailable."""

    async def done(self, work: Work, order_id: str, command: Command) -> bool:
        """Forget what was to be done; tell whether it still was. Raises: Unavailable."""

    async def in_motion(self, work: Work, account: str) -> Sequence[OrderEntry]:
        """Return an account's orders that may still change, oldest first. Raises: Unavailable."""

    async def any_in_motion(self, tenant: str, account: str) -> bool:
        """Tell whether an account has orders that may still change; nothing is locked. Raises: Unavailable."""

    async def by_venue_order(self, work: Work, account: str, ticket: str) -> OrderEntry | None:
        """Return the order the venue calls so. Raises: Unavailable."""

    async def adopt(self, work: Work, entry: OrderEntry) -> None:
        """Keep an order that somebody else put at the venue. Raises: Unavailable."""

    async def record_fills(self, work: Work, fills: Sequence[Fill]) -> Sequence[Fill]:
        """Keep fills; return those that are new. Raises: Unavailable."""

    async def unrecorded(self, work: Work, account: str, deals: Sequence[Deal]) -> Sequence[Deal]:
        """Return those of an account's deals that are not kept as fills. Raises: Unavailable."""

    async def filled(self, work: Work, order_id: str) -> tuple[Decimal, Decimal | None]:
        """Return the volume of an order's fills and their average price. Raises: Unavailable."""

    async def holdings(self, work: Work, account: str) -> Sequence[Holding]:
        """Return an account's positions. Raises: Unavailable."""

    async def hold(self, work: Work, account: str, holdings: Sequence[Holding]) -> None:
        """Make these an account's positions. Raises: Unavailable."""

    async def stand(self, work: Work, standing: Standing) -> None:
        """Keep how an account stands. Raises: Unavailable."""

    async def note_breaks(self, work: Work, account: str, breaks: Sequence[Break]) -> None:
        """Write down disagreements. Raises: Unavailable."""

    async def due(self, limit: int, lease_s: float) -> Sequence[OutboxRow]:
        """Return what is to be done, of all tenants; nobody else is given it for `lease_s`. Raises: Unavailable."""

    async def due_of(self, tenant: str, order_id: str) -> Sequence[OutboxRow]:
        """Return what is to be done about one order, unless somebody is at it. Raises: Unavailable."""

    async def accounts(self) -> Sequence[TradingAccount]:
        """Return every account that trades, of all tenants. Raises: Unavailable."""


class TradingReads(Protocol):
    """What callers ask of trading. What belongs to another tenant is not found."""

    async def order(self, tenant: str, order_id: str) -> OrderEntry:
        """Raises: NotFound (code ORDER_NOT_FOUND), Unavailable."""

    async def events(self, tenant: str, order_id: str) -> Sequence[OrderEvent]:
        """Return what happened to an order, oldest first. Raises: NotFound (code ORDER_NOT_FOUND), Unavailable."""

    async def orders(
        self, tenant: str, *, before: str | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[OrderEntry]:
        """Return orders older than `before`, newest first. where: account, symbol, state, strategy, client_order_id.

        Raises: Unavailable.
        """

    async def fills(
        self, tenant: str, *, after: tuple[int, str, str] | None, limit: int, where: Mapping[str, str]
    ) -> Sequence[Fill]:
        """Return fills behind (at_ms, account, deal), oldest first. where: account, symbol, order.

        Raises: Unavailable.
        """

    async def positions(self, tenant: str, account: str | None) -> Sequence[Holding]:
        """Return positions, by account and ticket. Raises: Unavailable."""

    async def standing(self, tenant: str, account: str) -> Standing:
        """Return how an account stands. Raises: NotFound (code ACCOUNT_NOT_FOUND), Unavailable."""
