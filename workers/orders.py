"""The trading queue's job: what is to be done about one order is done now, not when the outbox is next looked into."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from ulid import ULID

from core.errors.exceptions import NotFound
from core.infrastructure.central_hub import Hub
from core.messages.jobs import Answer
from core.messages.orders import OrderHint
from core.model.ledger import Command
from core.ports.jobs import JobFunction
from core.ports.venues import Venue
from core.settings import Settings
from core.telemetry import tracing
from core.trading.dispatch import Dispatcher
from core.trading.reconciliation import Patience, Reconciler
from core.trading.settling import Settlement
from workers.answering import JSON_TYPE, converted

SENDING_GRACE_S = 5.0
"""Beyond a venue's time to answer: whoever sends may be slow to write down what it was told."""


def venues_of(hub: Hub) -> Mapping[str, Venue]:
    """Return the venues accounts may have, by the word an account has for its own."""
    return {"paper": hub["paper_venue"], "mt5": hub["mt5_venue"]}


DONE: Final = Answer(content_type=JSON_TYPE, body=b"null")


def dispatcher_of(hub: Hub, settings: Settings) -> Dispatcher:
    """Return what sends orders, over this hub's services."""
    return Dispatcher(
        ledger=hub["order_ledger"],
        risk=hub["risk_book"],
        settlement=Settlement(ledger=hub["order_ledger"], audit=hub["audit"]),
        venues=venues_of(hub),
        send_timeout_s=settings.trading.send_timeout_s,
    )


def reconciler_of(hub: Hub, settings: Settings) -> Reconciler:
    """Return what matches accounts with their venues, over this hub's services."""
    trading = settings.trading
    return Reconciler(
        ledger=hub["order_ledger"],
        settlement=Settlement(ledger=hub["order_ledger"], audit=hub["audit"]),
        venues=venues_of(hub),
        quotes=hub["latest_quotes"],
        patience=Patience(
            sending_s=trading.send_timeout_s + SENDING_GRACE_S,
            absent_s=trading.absent_s,
        ),
        new_id=lambda: str(ULID()),
    )


def functions(hub: Hub, settings: Settings) -> Sequence[JobFunction]:
    """Return the functions over this hub's ledger and venues."""
    return [JobFunction(name="orders.dispatch", run=_dispatch(dispatcher_of(hub, settings)), tries=1)]


def _dispatch(dispatcher: Dispatcher) -> Callable[..., Awaitable[Answer]]:
    async def run(_ctx: Mapping[str, Any], request: Any, *, tenant: str, traceparent: str = "") -> Answer:
        tracing.start(traceparent)
        hint: OrderHint = converted(request, OrderHint)
        if hint.command is Command.SEND:
            # Whoever takes its row out of the outbox under the account's lock sends it: no lease is needed for that.
            await dispatcher.send(tenant, hint.order)
            return DONE
        for row in await dispatcher.ledger.due_of(tenant, hint.order):
            try:
                await dispatcher.handle(row)
            except NotFound:
                continue
        return DONE

    return run
