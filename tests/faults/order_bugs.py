"""Bugs for the order machine to find, each with where it is put in and by which words it must be noticed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from core.model.ledger import Command
from core.model.orders import OrderState
from core.model.venues import VenueReport
from core.trading import reconciliation, settling
from core.trading.dispatch import Dispatcher
from core.trading.reconciliation import Reconciler
from core.trading.settling import Settlement

_S = OrderState
_ASK, _SETTLE, _KEPT_BACK = Dispatcher._ask, Dispatcher._settle, Dispatcher._kept_back
_ABSENT, _NEVER_ARRIVED = Reconciler._absent, Reconciler._never_arrived
_MOVE, _TAKE_STATE, _RECORD = Settlement.move, Settlement.take_state, Settlement.record
_APPLIED = settling.applied
Broken = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Bug:
    """place, name: what is replaced; broken: by what; words: of the rule that must notice it, any of them."""

    place: Any
    name: str
    broken: Any
    words: tuple[str, ...]


async def sent_before_that_is_written(self: Dispatcher, tenant: str, order_id: str) -> Any:
    """Send what waits, and write that it is being sent when its answer is written."""
    async with self.ledger.work(tenant) as work:
        entry = await self.ledger.locked(work, order_id)
        standing = await self.ledger.lock_account(work, entry.order.account)
    return (standing.account, entry) if entry.state is _S.QUEUED else None


async def sent_whoever_halts(self: Dispatcher, work: Any, entry: Any, halted: Any) -> bool:
    return await _KEPT_BACK(self, work, entry, replace(halted, by=()))


async def taken_for_refused(self: Dispatcher, of: Any, entry: Any) -> VenueReport:
    """Take silence for a refusal."""
    report = await _ASK(self, of, entry)
    return replace(report, state=_S.REJECTED) if report.state is _S.UNKNOWN else report


async def absent_at_first_sight(self: Reconciler, work: Any, comparison: Any, entry: Any) -> None:
    """Take what one view does not show for what never arrived."""
    if entry.state is _S.UNKNOWN:
        await self._never_arrived(work, entry, comparison.now_ms)
    else:
        await _ABSENT(self, work, comparison, entry)


async def sent_again_however_stale(self: Reconciler, work: Any, entry: Any, now_ms: int) -> None:
    """Send again what never arrived, also when its market has gone."""
    queued = await self.settlement.move(
        work, entry, _S.QUEUED, what="order.never_arrived", absent_since_ms=None
    )
    await self.ledger.put(work, queued, Command.SEND)


async def counted_again(self: Settlement, work: Any, account: str, deals: Any, ours: Any) -> Any:
    """Take every deal for a new one."""
    told = [settling.fill_of(account, deal, ours.get(deal.tag) or ours.get(deal.order)) for deal in deals]
    await self.ledger.record_fills(work, told)
    if told:
        standing = await self.ledger.lock_account(work, account)
        held = await self.ledger.holdings(work, account)
        await self.ledger.hold(work, account, _APPLIED(held, told, hedging=standing.account.hedging))
    for fill in told:
        await self.audit.append(work, settling._filled(fill))
    return told


def without_audit_of(what: str) -> Broken:
    """Return a move that is not audited where it is of that kind."""

    async def move(self: Settlement, work: Any, entry: Any, state: Any, **fields: Any) -> Any:
        if fields["what"] == what:
            names = {"what", "detail", "done"} & fields.keys()
            changes = {name: value for name, value in fields.items() if name not in {"actor", *names}}
            return await self.ledger.move(work, entry, state, **{n: fields[n] for n in names}, **changes)
        return await _MOVE(self, work, entry, state, **fields)

    return move


async def answered_by_anything(self: Settlement, work: Any, entry: Any, report: Any, **fields: Any) -> Any:
    """Let whatever is reported of an order answer what it waits for."""
    return await _TAKE_STATE(self, work, entry, report, **{**fields, "answered": True})


async def changed_though_refused(self: Dispatcher, row: Any) -> None:
    """Take a change for made, whatever its venue says."""
    entry, account = await self._still(row, _S.PENDING_MODIFY)
    if entry is not None and account is not None:
        report = await self.venues[account.venue].modify(account, entry.venue_order, row.change)
        await _SETTLE(self, row, report, "order.modify_reported", row.change)


def netted(held: Any, fills: Any, *, hedging: bool) -> Any:
    """Net the positions of every account."""
    return _APPLIED(held, fills, hedging=False)


async def silent_while_it_is_away(*_: Any) -> None:
    """Say nothing of what was sent to a venue that cannot be seen."""


class Mute:
    """A log that keeps errors to itself."""

    def error(self, *_words: Any, **_fields: Any) -> None:
        return

    warning = info = error


BUGS: Final[dict[str, Bug]] = {
    "sent before that is written down": Bug(
        place=Dispatcher,
        name="_begin",
        broken=sent_before_that_is_written,
        words=("was executed", "sent twice", "behind a kill switch", "may not go from"),
    ),
    "sent behind a kill switch": Bug(
        place=Dispatcher, name="_kept_back", broken=sent_whoever_halts, words=("behind a kill switch",)
    ),
    "silence is a refusal": Bug(
        place=Dispatcher,
        name="_ask",
        broken=taken_for_refused,
        words=(
            "the venue works on",
            "executed",
            "is known to one side",
            "a break: external",
            "a break: resurfaced",
        ),
    ),
    "one look is proof": Bug(
        place=Reconciler,
        name="_absent",
        broken=absent_at_first_sight,
        words=(
            "the venue works on",
            "executed",
            "is known to one side",
            "a break: external",
            "a break: resurfaced",
        ),
    ),
    "a stale market order is sent again": Bug(
        place=Reconciler,
        name="_never_arrived",
        broken=sent_again_however_stale,
        words=("a market order was sent twice", "too late"),
    ),
    "a deal is counted twice": Bug(
        place=Settlement, name="record", broken=counted_again, words=("the position is", "audited 2 times")
    ),
    "a move is not audited": Bug(
        place=Settlement,
        name="move",
        broken=without_audit_of("order.absent"),
        words=("audited 0 times",),
    ),
    "a cancellation is lost behind another answer": Bug(
        place=Settlement,
        name="take_state",
        broken=answered_by_anything,
        words=("its cancellation was forgotten",),
    ),
    "a refused change is kept": Bug(
        place=Dispatcher,
        name="_modify",
        broken=changed_though_refused,
        words=("which its venue never heard of", "the venue works on"),
    ),
    "hedging positions are netted": Bug(
        place=settling, name="applied", broken=netted, words=("the position is", "a break: quantity")
    ),
    "nobody is told of a dead sender while its venue is away": Bug(
        place=reconciliation,
        name="give_up_unseen",
        broken=silent_while_it_is_away,
        words=("nobody was told that it hangs",),
    ),
    "UNKNOWN without an alert": Bug(place=settling, name="log", broken=Mute(), words=("alerts",)),
}
