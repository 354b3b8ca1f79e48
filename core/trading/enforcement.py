"""Kill switches take effect: what waits is denied, what works is taken back. The risk checks deny what is new."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.model.ledger import Command, OrderEntry
from core.model.orders import OrderState
from core.model.risk import Denial, KillSwitch
from core.model.venues import TradingAccount
from core.ports.access import Work
from core.ports.orders import OrderLedger
from core.ports.risk import RiskDesk
from core.trading.settling import Settlement

_S = OrderState
_TAKEN_BACK = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED, _S.PENDING_MODIFY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcer:
    """Holds orders to the switches that are engaged."""

    ledger: OrderLedger
    risk: RiskDesk
    settlement: Settlement

    async def enforce(self) -> int:
        """Deny or take back every order an engaged switch covers; return how many there were. Raises: Unavailable."""
        switches = await self.risk.engaged()
        if not switches:
            return 0
        count = 0
        for account in await self.ledger.accounts():
            covering = [one for one in switches if _may_cover(one, account)]
            if covering and await self.ledger.any_in_motion(account.tenant, account.id):
                count += await self._enforce_on(account, covering)
        return count

    async def _enforce_on(self, account: TradingAccount, switches: Sequence[KillSwitch]) -> int:
        count = 0
        async with self.ledger.work(account.tenant) as work:
            await self.ledger.lock_account(work, account.id)
            for entry in await self.ledger.in_motion(work, account.id):
                covering = [one for one in switches if _covers(one, entry)]
                if covering and await self._stop(work, entry, covering):
                    count += 1
        return count

    async def _stop(self, work: Work, entry: OrderEntry, switches: Sequence[KillSwitch]) -> bool:
        scopes = ", ".join(f"{one.scope} {one.target}".strip() for one in switches)
        if entry.state is _S.QUEUED:
            denial = Denial(
                check=1,
                code="TRADING_HALTED",
                reason=f"trading is halted for {scopes}",
                numbers={"halts": scopes},
            )
            await self.ledger.done(work, entry.order.id, Command.SEND)
            detail = {"denials": [denial.code], "halts": scopes}
            await self.settlement.move(
                work, entry, _S.DENIED, what="order.denied", detail=detail, denials=(denial,)
            )
            return True
        if entry.state in _TAKEN_BACK:
            await self.ledger.done(work, entry.order.id, Command.MODIFY)
            await self.ledger.put(work, entry, Command.CANCEL)
            await self.settlement.move(
                work, entry, _S.PENDING_CANCEL, what="order.cancel_asked", detail={"halts": scopes}
            )
            return True
        return False


def _may_cover(switch: KillSwitch, account: TradingAccount) -> bool:
    if switch.tenant not in {"", account.tenant}:
        return False
    return switch.scope != "account" or switch.target == account.id


def _covers(switch: KillSwitch, entry: OrderEntry) -> bool:
    if switch.scope == "account":
        return switch.target == entry.order.account
    return switch.scope != "strategy" or switch.target == entry.order.strategy
