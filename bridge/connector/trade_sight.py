"""Look into the terminal: an order's surroundings, what became of it, everything an account holds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bridge.connector.pipe import Call
from bridge.connector.terminal import AccountInfo, TerminalRefused
from bridge.connector.terminal_process import TerminalProcess
from bridge.connector.trade_requests import Facts
from bridge.connector.trade_view import Eyes, Tags
from bridge.connector.trades import OpenPosition, PlacedOrder
from core.errors.exceptions import TickgateError, Unavailable
from core.model.orders import OrderState
from core.model.ticks import UTC_OFFSET_UNKNOWN
from core.model.venues import Deal, VenueOrder, VenueReport, VenueView

log = structlog.get_logger(__name__)

DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """The account a command is for. 0 and "" are any."""

    login: int
    server: str

    def require(self, signed_in: AccountInfo) -> None:
        """Raises: Unavailable, where the terminal is signed in to another account."""
        there = (signed_in.login, signed_in.server)
        if self.login not in (0, signed_in.login) or self.server not in ("", signed_in.server):
            raise Unavailable(
                f"the terminal is signed in to account {there[0]} at {there[1]}, not to {self.login} at {self.server}",
                code="WRONG_ACCOUNT",
            )


class Sight:
    """One terminal's answers. tags: whose orders are whose; utc_offset_s: of its clock, as measured by now."""

    def __init__(self, terminal: TerminalProcess, utc_offset_s: Callable[[], int]) -> None:
        self._terminal = terminal
        self._utc_offset_s = utc_offset_s
        self.tags = Tags()

    async def facts(self, symbol: str, meant: Meant) -> Facts:
        """Return what an order in `symbol` meets. Raises: Unavailable."""
        account, _, info, quote, positions = await self._ask(
            Call(name="account_info"),
            # A symbol nobody watches has no quotes.
            Call(name="symbol_select", arguments=[symbol, True]),
            Call(name="symbol_info", arguments=[symbol]),
            Call(name="symbol_info_tick", arguments=[symbol]),
            Call(name="positions_get", named={"symbol": symbol}),
        )
        meant.require(account)
        return Facts(
            account=account,
            symbol=info,
            quote=quote,
            positions=positions,
            utc_offset_s=self._utc_offset_s(),
        )

    async def view(self, since_ms: int, meant: Meant) -> VenueView:
        """Return what the account holds, and what ended since. Raises: Unavailable."""
        offset_s = self._utc_offset_s()
        if offset_s == UTC_OFFSET_UNKNOWN:
            raise Unavailable("the trade server's clock has not been measured yet", code="CLOCK_UNKNOWN")
        # The server's clock may be ahead of ours, and its seconds are whole.
        dates = [max(1, since_ms // 1_000 + offset_s), int(time.time()) + offset_s + DAY_S]
        account, orders, positions, ended, deals = await self._ask(
            Call(name="account_info"),
            Call(name="orders_get"),
            Call(name="positions_get"),
            Call(name="history_orders_get", arguments=dates),
            Call(name="history_deals_get", arguments=dates),
        )
        meant.require(account)
        return self._eyes().view(
            account,
            orders=orders,
            positions=positions,
            ended=ended,
            deals=deals,
            at_ms=time.time_ns() // 1_000_000,
        )

    async def placed(self, ticket: int, meant: Meant) -> tuple[PlacedOrder | None, PlacedOrder | None]:
        """Return the order as it works, or as it ended. Raises: Unavailable."""
        account, working, ended = await self._ask(
            Call(name="account_info"),
            Call(name="orders_get", named={"ticket": ticket}),
            Call(name="history_orders_get", named={"ticket": ticket}),
        )
        meant.require(account)
        return next(iter(working), None), next(iter(ended), None)

    async def position_of(self, ticket: int) -> OpenPosition | None:
        """Return the position an order opened. Raises: Unavailable."""
        (positions,) = await self._ask(Call(name="positions_get"))
        return next((one for one in positions if ticket in (one.ticket, one.identifier)), None)

    async def found(self, ticket: int) -> tuple[VenueOrder | None, tuple[Deal, ...]]:
        """Look once for an order and its deals, after it was asked for; what cannot be seen comes with a view."""
        try:
            working, ended, made = await self._ask(
                Call(name="orders_get", named={"ticket": ticket}),
                Call(name="history_orders_get", named={"ticket": ticket}),
                Call(name="history_deals_get", named={"ticket": ticket}),
            )
        except TickgateError as e:
            log.warning("order.not_confirmed", ticket=ticket, error=str(e))
            return None, ()
        placed = next(iter((*working, *ended)), None)
        found = None if placed is None else self._eyes().order(placed, working=bool(working))
        if self._utc_offset_s() == UTC_OFFSET_UNKNOWN:
            # A deal's time would be a guess; a later view brings it.
            return found, ()
        return found, tuple(deal for one in made if (deal := self._eyes().deal(one)))

    def as_it_stands(self, ticket: int, placed: PlacedOrder | None, *, working: bool = False) -> VenueReport:
        """Return the report of an order as the terminal shows it."""
        found = None if placed is None else self._eyes().order(placed, working=working)
        if found is None:
            reason = "the terminal shows no such order"
            return VenueReport(
                state=OrderState.UNKNOWN, order=str(ticket), code="NOT_AT_VENUE", reason=reason
            )
        return VenueReport(state=found.state, order=found.ticket)

    def _eyes(self) -> Eyes:
        return Eyes(tags=self.tags, utc_offset_s=self._utc_offset_s())

    async def _ask(self, *calls: Call) -> Sequence[Any]:
        answers = await self._terminal.calls(calls)
        for answer in answers:
            if isinstance(answer, TerminalRefused):
                raise answer
        return answers
