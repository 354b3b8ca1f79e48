"""What the trading worker does without being asked: empty the outbox, look at accounts, enforce kill switches.

Any number of workers may do it at once: a row of the outbox is given to one of them, and an account's lock lets one
compare at a time. Nothing is sent for an account before it has been matched with its venue.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import structlog

from core.errors.exceptions import TickgateError
from core.infrastructure import error_handler
from core.infrastructure.central_hub import Hub
from core.model.ledger import OutboxRow
from core.model.venues import TradingAccount
from core.ports.orders import OrderLedger
from core.settings import Settings, TradingSettings
from core.trading.dispatch import Dispatcher
from core.trading.enforcement import Enforcer
from core.trading.reconciliation import Reconciler
from core.trading.settling import Settlement
from core.trading.stopping import LossStops
from workers.orders import dispatcher_of, reconciler_of

log = structlog.get_logger(__name__)

OUTBOX_ROWS_MAX: Final = 64
SWEEPS_MAX: Final = 16
"""A sweep that found as much as it may take looks again at once, so often."""
OUTBOX_LEASE_S: Final = 20.0
"""Longer than a venue may take, so that nobody else is given what is being done."""
AT_ONCE_MAX: Final = 16
PAPER_INTERVAL_S: Final = 0.05
PAPER_IDLE_S: Final = 0.5
ENFORCE_INTERVAL_S: Final = 0.25
RESTLESS_LOOKS: Final = 2
"""An account that was being changed whenever it was looked at, so often, is held for the next look."""
FAILURE_PAUSE_S: Final = 0.5


class TradingRounds:
    """Goes round until it is cancelled."""

    def __init__(
        self,
        *,
        ledger: OrderLedger,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        enforcer: Enforcer,
        stops: LossStops,
        advance: Callable[[], Awaitable[int]],
        settings: TradingSettings,
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._enforcer = enforcer
        self._stops = stops
        self._advance = advance
        self._settings = settings
        self._matching: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tried: set[tuple[str, str]] = set()
        self._away: set[tuple[str, str]] = set()
        self._restless: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._first = asyncio.Event()
        self._places = asyncio.Semaphore(AT_ONCE_MAX)

    def unready(self) -> str:
        return "" if self._first.is_set() else "accounts are still being matched with their venues"

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            for task in self._matching.values():
                task.cancel()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever(self.look, self._settings.sync_interval_ms / 1_000))
            group.create_task(self._for_ever(self.advance, PAPER_INTERVAL_S))
            group.create_task(self._for_ever(self.enforce, ENFORCE_INTERVAL_S))
            await self._first.wait()
            group.create_task(self._for_ever(self.sweep, self._settings.sweep_interval_ms / 1_000))

    async def look(self) -> None:
        """Compare every account with its venue, each at its venue's pace: one that is silent keeps nobody waiting."""
        accounts = {(one.tenant, one.id): one for one in await self._ledger.accounts()}
        for key in accounts.keys() - self._matching.keys():
            self._matching[key] = asyncio.create_task(self._match(key, accounts[key]))
        if accounts.keys() <= self._tried:
            self._first.set()

    async def sweep(self) -> None:
        """Do what the outbox still holds."""
        rows: Sequence[OutboxRow] = ()
        for turn in range(SWEEPS_MAX):
            if turn and len(rows) < OUTBOX_ROWS_MAX:
                return
            rows = await self._ledger.due(OUTBOX_ROWS_MAX, OUTBOX_LEASE_S)
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(self._guarded(partial(self._dispatcher.handle, row), "outbox"))

    async def advance(self) -> None:
        """Let paper accounts meet the newest quotes; where none waits for one, look less often."""
        if not await self._advance():
            await asyncio.sleep(PAPER_IDLE_S)

    async def enforce(self) -> None:
        """Take back what kill switches cover."""
        await self._enforcer.enforce()

    async def _match(self, key: tuple[str, str], account: TradingAccount) -> None:
        try:
            async with self._places:
                if await self._matched(key, account):
                    await self._stops.look(account)
        except TickgateError as e:
            if key not in self._away:
                self._away.add(key)
                log.warning("account.away", account=account.id, venue=account.venue, error=str(e))
        except Exception as e:
            error_handler.report(e, account=account.id)
        else:
            if key in self._away:
                self._away.discard(key)
                log.info("account.back", account=account.id, venue=account.venue)
        finally:
            self._tried.add(key)
            del self._matching[key]

    async def _matched(self, key: tuple[str, str], account: TradingAccount) -> bool:
        """Match an account; one that was never still when it was looked at is held for it."""
        if self._restless[key] < RESTLESS_LOOKS:
            still = await self._reconciler.reconcile(account)
            self._restless[key] = 0 if still else self._restless[key] + 1
            return still
        await self._reconciler.reconcile_held(account)
        self._restless[key] = 0
        return True

    async def _guarded(self, do: Callable[[], Awaitable[object]], what: str) -> bool:
        """Do one thing; that it fails stops nothing else."""
        async with self._places:
            try:
                await do()
            except TickgateError as e:
                log.warning("trading.round_failed", what=what, error=str(e))
                return False
            except Exception as e:
                error_handler.report(e)
                return False
        return True

    async def _for_ever(self, do: Callable[[], Awaitable[None]], interval_s: float) -> None:
        while True:
            began_s = time.monotonic()
            try:
                await do()
            except TickgateError as e:
                log.warning("trading.round_failed", what=getattr(do, "__name__", "round"), error=str(e))
                await asyncio.sleep(FAILURE_PAUSE_S)
            except Exception as e:
                error_handler.report(e)
                await asyncio.sleep(FAILURE_PAUSE_S)
            await asyncio.sleep(max(0.0, interval_s - (time.monotonic() - began_s)))


def rounds(hub: Hub, settings: Settings) -> TradingRounds:
    """Return the rounds over this hub's services."""
    hub["audit"].tells(hub["trail_news"].moved)
    settlement = Settlement(ledger=hub["order_ledger"], audit=hub["audit"])
    return TradingRounds(
        ledger=hub["order_ledger"],
        dispatcher=dispatcher_of(hub, settings),
        reconciler=reconciler_of(hub, settings),
        enforcer=Enforcer(ledger=hub["order_ledger"], risk=hub["risk_book"], settlement=settlement),
        stops=LossStops(ledger=hub["order_ledger"], risk=hub["risk_book"], audit=hub["audit"]),
        advance=hub["paper_venue"].advance_all,
        settings=settings.trading,
    )
