"""Kill switches and states take effect: what waits is denied, what works is taken back, what may stay stays.

The risk checks deny what is new. Positions stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors.exceptions import TickgateError
from core.model.ledger import Command, OrderEntry
from core.model.orders import OrderState
from core.model.risk import Restriction, SwitchScope, TradingState
from core.model.venues import TradingAccount
from core.ports.access import Work
from core.ports.orders import OrderLedger
from core.ports.risk import RiskDesk
from core.trading.halting import TAKEN_BACK, covers, deny, growing, halted_for, names, reducing_only
from core.trading.settling import Settlement

_S = OrderState


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcer:
    """Holds orders to the switches that are engaged, and to states that are not ACTIVE."""

    ledger: OrderLedger
    risk: RiskDesk
    settlement: Settlement

    async def enforce(self) -> int:
        """Deny or take back every order that may not go on; return how many there were.

        Raises: Unavailable, Corrupt: of one account; the others were looked at all the same.
        """
        restrictions = await self.risk.restrictions()
        if not restrictions:
            return 0
        count, failure = 0, None
        for account in await self.ledger.accounts():
            covering = [one for one in restrictions if _may_cover(one, account)]
            try:
                if covering and await self.ledger.any_in_motion(account.tenant, account.id):
                    count += await self._enforce_on(account, covering)
            except TickgateError as e:
                failure = failure or e
        if failure is not None:
            raise failure
        return count

    async def _enforce_on(self, account: TradingAccount, restrictions: Sequence[Restriction]) -> int:
        count = 0
        async with self.ledger.work(account.tenant) as work:
            await self.ledger.lock_account(work, account.id)
            entries = await self.ledger.in_motion(work, account.id)
            covering = {
                entry.order.id: [one for one in restrictions if covers(one, account.id, entry.order.strategy)]
                for entry in entries
            }
            halted = {
                name
                for name, found in covering.items()
                if any(one.state is TradingState.HALTED for one in found)
            }
            reducing = {name for name, found in covering.items() if found} - halted
            stopped = halted
            if reducing:
                held = await self.ledger.holdings(work, account.id)
                staying = [entry for entry in entries if entry.order.id not in halted]
                stopped = halted | growing(staying, held, reducing, hedging=account.hedging)
            for entry in entries:
                if entry.order.id in stopped:
                    count += await self._stop(work, entry, covering[entry.order.id])
        return count

    async def _stop(self, work: Work, entry: OrderEntry, restrictions: Sequence[Restriction]) -> bool:
        halts = names(one for one in restrictions if one.state is TradingState.HALTED)
        scopes = halts or names(restrictions)
        if entry.state is _S.QUEUED:
            denial = halted_for(halts) if halts else reducing_only()
            await deny(self.settlement, work, entry, denial, scopes)
            return True
        if entry.state in TAKEN_BACK:
            await self.ledger.done(work, entry.order.id, Command.MODIFY)
            await self.ledger.put(work, entry, Command.CANCEL)
            await self.settlement.move(
                work, entry, _S.PENDING_CANCEL, what="order.cancel_asked", detail={"halts": scopes}
            )
            return True
        return False


def _may_cover(one: Restriction, account: TradingAccount) -> bool:
    if one.tenant not in {"", account.tenant}:
        return False
    return one.scope is not SwitchScope.ACCOUNT or one.target == account.id
