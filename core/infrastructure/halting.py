"""Kill switches from the operator's side: everybody's trading, or one tenant's, without any credential of its own."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from core.errors.exceptions import NotFound
from core.infrastructure.central_hub import Hub, open_hub
from core.model.audit import AuditEvent
from core.model.risk import OPERATORS, KillSwitch, SwitchScope
from core.ports.access import Work
from core.ports.orders import OrderLedger
from core.settings import Settings

NEEDS = frozenset({"risk_book", "order_ledger", "audit"})
OPERATOR = f"{OPERATORS}cli"


async def halt(settings: Settings, tenant: str, scope: SwitchScope, target: str, reason: str) -> KillSwitch:
    """Engage a switch. tenant: "" for everybody, with the scope GLOBAL.

    Raises: NotFound (code TENANT_NOT_FOUND, ACCOUNT_NOT_FOUND): it would halt nothing, and somebody would believe it
    did. Unavailable.
    """
    async with open_hub(settings, NEEDS) as hub:
        if tenant and tenant not in {one.tenant for one in await hub["order_ledger"].accounts()}:
            raise NotFound(f"no account of a tenant {tenant!r} trades", code="TENANT_NOT_FOUND")
        return await _halt(hub, tenant, scope, target, reason)


async def _halt(hub: Hub, tenant: str, scope: SwitchScope, target: str, reason: str) -> KillSwitch:
    async with _work(hub, tenant) as work:
        switch: KillSwitch = await hub["risk_book"].engage(
            work, scope, target, reason=reason, author=OPERATOR
        )
        await hub["audit"].append(work, _event("kill.engaged", switch))
    return switch


async def resume(settings: Settings, tenant: str, switch_id: str) -> None:
    """Release a switch; one that is released stays as it is. Raises: NotFound, Unavailable."""
    async with open_hub(settings, NEEDS) as hub, _work(hub, tenant) as work:
        switch: KillSwitch | None = await hub["risk_book"].release(work, switch_id, author=OPERATOR)
        if switch is not None:
            await hub["audit"].append(work, _event("kill.released", switch))


async def engaged(settings: Settings) -> Sequence[KillSwitch]:
    """Return the switches that hold, of everybody. Raises: Unavailable."""
    async with open_hub(settings, NEEDS) as hub:
        found: Sequence[KillSwitch] = await hub["risk_book"].engaged()
    return found


def _work(hub: Hub, tenant: str) -> AbstractAsyncContextManager[Work]:
    ledger: OrderLedger = hub["order_ledger"]
    return ledger.work(tenant) if tenant else ledger.operators_work()


def _event(what: str, switch: KillSwitch) -> AuditEvent:
    facts = {
        "id": switch.id,
        "scope": str(switch.scope),
        "target": switch.target,
        "reason": switch.reason,
    }
    return AuditEvent(type=what, actor=OPERATOR, facts=facts)
