"""Losses stop an account by themselves: it is HALTED, that is written down, and only a person lets it go on."""

from dataclasses import dataclass
from typing import Final

import structlog

from core.model.audit import AuditEvent, AuditValue
from core.model.risk import AccountFacts, SwitchScope
from core.model.venues import TradingAccount
from core.ports.audit import AuditTrail
from core.ports.orders import OrderLedger
from core.ports.risk import RiskDesk
from core.trading.stops import Stop, stop_for

log = structlog.get_logger(__name__)

AUTHOR: Final = "service:trading"


@dataclass(frozen=True, slots=True, kw_only=True)
class LossStops:
    """Looks at how accounts fare."""

    ledger: OrderLedger
    risk: RiskDesk
    audit: AuditTrail

    async def look(self, account: TradingAccount) -> Stop | None:
        """Halt an account that has lost more than it may; return why, None where it has not. Raises: Unavailable."""
        stop = await self._judged(account)
        if stop is None:
            return None
        codes: list[AuditValue] = list(stop.codes)
        facts: dict[str, AuditValue] = {"state": str(stop.state), "codes": codes, "reason": stop.reason}
        event = AuditEvent(type="risk.state", actor=AUTHOR, account=account.id, facts=facts)
        # A transaction of its own: what sets a state must not have read one first, or two would wait for each other.
        async with self.ledger.work(account.tenant) as work:
            await self.risk.set_state(
                work, SwitchScope.ACCOUNT, account.id, stop.state, reason=stop.reason, author=AUTHOR
            )
            await self.audit.append(work, event)
        log.error("account.halted", account=account.id, codes=stop.codes, reason=stop.reason)
        return stop

    async def _judged(self, account: TradingAccount) -> Stop | None:
        async with self.ledger.work(account.tenant) as work:
            rules = await self.risk.rules(work, account=account.id, strategy="", symbol="")
            standing = await self.ledger.lock_account(work, account.id)
        facts = AccountFacts(
            enabled=True,
            connected=True,
            equity=standing.equity,
            day_start_equity=standing.day_start_equity,
            peak_equity=standing.peak_equity,
        )
        return stop_for(rules.state, facts, rules.limits)
