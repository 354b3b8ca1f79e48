"""Orders whose sender has died: UNKNOWN, with an alert, whether their venue can be seen or not."""

from core.model.ledger import OrderEntry
from core.model.orders import OrderState
from core.model.venues import TradingAccount, VenueReport
from core.ports.access import Work
from core.trading.settling import Settlement


async def give_up(
    settlement: Settlement, work: Work, entry: OrderEntry, now_ms: int, patience_s: float
) -> None:
    """Make an order UNKNOWN that has been SENDING for too long; its account is locked."""
    if now_ms - (entry.sent_at_ms or 0) <= patience_s * 1_000:
        return
    # Whoever sent it has died, or it would have said how it went.
    report = VenueReport(
        state=OrderState.UNKNOWN, code="UNKNOWN_OUTCOME", reason="sent, and nobody has said how it went"
    )
    await settlement.take_state(work, entry, report, what="order.unknown")


async def give_up_unseen(settlement: Settlement, account: TradingAccount, patience_s: float) -> None:
    """Do so to an account whose venue is away: that is no reason to keep quiet about what was sent there."""
    ledger = settlement.ledger
    async with ledger.work(account.tenant) as work:
        await ledger.lock_account(work, account.id)
        now_ms = await ledger.now_ms(work)
        for entry in await ledger.in_motion(work, account.id):
            if entry.state is OrderState.SENDING:
                await give_up(settlement, work, entry, now_ms, patience_s)
