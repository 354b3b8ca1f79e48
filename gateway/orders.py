"""Orders over HTTP: submitted, taken back, changed in one transaction with their answer; read through a worker."""

import asyncio
from typing import Any, Final

import msgspec
import structlog
from starlette.responses import Response
from ulid import ULID

from core.errors.exceptions import Conflict, Invalid, NotFound, TickgateError
from core.messages.message import Message
from core.messages.orders import (
    FillPageQuestion,
    OrderHint,
    OrderPageQuestion,
    OrderQuestion,
    PositionQuestion,
    StandingQuestion,
    order_fields,
)
from core.model.ledger import Command, OrderEntry
from core.model.orders import Order, OrderState, OrderType
from core.model.venues import OrderChange
from core.telemetry.tracing import current_traceparent
from gateway.asking import answered
from gateway.authentication import require_still_valid
from gateway.bodies import parse_json
from gateway.idempotency import stored
from gateway.order_shapes import (
    CancelWish,
    ChangeWish,
    FillQuery,
    OrderQuery,
    OrderWish,
    PositionQuery,
    contradiction,
    decimal_of,
)
from gateway.parameters import NoParameters, parse
from gateway.records import id_of
from gateway.routing import Call

log = structlog.get_logger(__name__)

ORDER_ID_LENGTH: Final = 26
_hints: Final[set[asyncio.Task[None]]] = set()


async def submit(call: Call) -> Response:
    """Submit an order.

    It is judged and kept before it is answered: QUEUED, and sent at once, or DENIED with every reason why.
    """
    wish = parse_json(call, OrderWish)
    if problem := contradiction(wish):
        raise Invalid(problem, code="CONTRADICTORY_BODY")
    order = _order(call, wish)
    async with call.work() as work:
        # Inside: to get here may have taken long.
        await require_still_valid(call.request, call.services)
        entry = await call.services.entrance.submit(
            work,
            order,
            actor=call.caller.actor,
            traceparent=current_traceparent(),
            approval=wish.approval or "",
        )
        response = _one(entry, 202)
        response.headers["Location"] = f"/v1/orders/{order.id}"
        await work.answer(stored(response))
    if entry.state is OrderState.QUEUED:
        _hint(call, order.id, Command.SEND)
    return response


async def cancel(call: Call) -> Response:
    """Take an order back.

    One that nobody has sent yet is CANCELED at once, any other once its venue has done so.
    """
    order_id = _asked_for(call)
    async with call.work() as work:
        await require_still_valid(call.request, call.services)
        entry = await call.services.changes.cancel(work, order_id, actor=call.caller.actor)
        response = _one(entry, 202)
        await work.answer(stored(response))
    if entry.state is OrderState.PENDING_CANCEL:
        _hint(call, order_id)
    return response


async def cancel_many(call: Call) -> Response:
    """Take back an account's orders: all, or those of a symbol, a side, a strategy."""
    wish = parse_json(call, CancelWish)
    canceled: list[OrderEntry] = []
    in_flight: list[str] = []
    async with call.work() as work:
        await require_still_valid(call.request, call.services)
        ledger = call.services.ledger
        await ledger.lock_account(work, wish.account)
        for entry in await ledger.in_motion(work, wish.account):
            if not _meant(entry.order, wish):
                continue
            try:
                canceled.append(
                    await call.services.changes.cancel(work, entry.order.id, actor=call.caller.actor)
                )
            except Conflict:
                in_flight.append(entry.order.id)
        body = {"items": [order_fields(entry) for entry in canceled], "in_flight": in_flight}
        response = Response(msgspec.json.encode(body), 202, media_type="application/json")
        await work.answer(stored(response))
    for entry in canceled:
        if entry.state is OrderState.PENDING_CANCEL:
            _hint(call, entry.order.id)
    return response


async def modify(call: Call) -> Response:
    """Change the prices of a working order.

    The changed order passes the same risk checks as a new one.
    """
    order_id, wish = _asked_for(call), parse_json(call, ChangeWish)
    given = {name: value for name, value in msgspec.structs.asdict(wish).items() if value is not None}
    if not given:
        raise Invalid("say what to change", code="CONTRADICTORY_BODY")
    change = OrderChange(**{name: decimal_of(value) for name, value in given.items()})
    async with call.work() as work:
        await require_still_valid(call.request, call.services)
        entry = await call.services.changes.modify(work, order_id, change, actor=call.caller.actor)
        response = _one(entry, 202)
        await work.answer(stored(response))
    _hint(call, order_id)
    return response


async def listed(call: Call) -> Response:
    """List orders, newest first."""
    query = parse(call.request, OrderQuery)
    filters = ("account", "symbol", "state", "strategy", "client_order_id")
    asked = OrderPageQuestion(before=query.cursor, limit=query.limit, where=_where(query, filters))
    return await answered(call, "orders.page", asked)


async def read(call: Call) -> Response:
    """Show an order."""
    parse(call.request, NoParameters)
    return await answered(call, "orders.read", OrderQuestion(id=_asked_for(call)))


async def events(call: Call) -> Response:
    """Show all that has happened to an order."""
    parse(call.request, NoParameters)
    return await answered(call, "orders.events", OrderQuestion(id=_asked_for(call)))


async def fills(call: Call) -> Response:
    """List fills, oldest first."""
    query = parse(call.request, FillQuery)
    where = _where(query, ("account", "symbol", "order"))
    return await answered(
        call, "fills.page", FillPageQuestion(after=query.cursor, limit=query.limit, where=where)
    )


async def positions(call: Call) -> Response:
    """List positions."""
    query = parse(call.request, PositionQuery)
    return await answered(call, "positions.list", PositionQuestion(account=query.account))


async def standing(call: Call) -> Response:
    """Show how an account stands: balance, equity, margin."""
    parse(call.request, NoParameters)
    return await answered(call, "accounts.standing", StandingQuestion(id=id_of(call)))


def _order(call: Call, wish: OrderWish) -> Order:
    given = {name: value for name, value in msgspec.structs.asdict(wish).items() if name != "approval"}
    amounts = {
        name: None if given[name] is None else decimal_of(given[name])
        for name in ("volume", "price", "stop_price", "stop_loss", "take_profit")
    }
    valid_for_ms = wish.valid_for_ms
    if valid_for_ms is None and wish.type is OrderType.MARKET:
        valid_for_ms = call.services.settings.trading.market_valid_for_ms
    fields: dict[str, Any] = {**given, **amounts, "valid_for_ms": valid_for_ms}
    return Order(id=str(ULID()), tenant=call.caller.tenant, **fields)


def _meant(order: Order, wish: CancelWish) -> bool:
    wanted = {"symbol": wish.symbol, "side": wish.side, "strategy": wish.strategy}
    return all(value is None or getattr(order, name) == value for name, value in wanted.items())


def _hint(call: Call, order_id: str, command: Command | None = None) -> None:
    """Tell a worker at once; if nobody hears it, the outbox is looked into soon."""

    async def tell() -> None:
        try:
            await call.services.queue.ask(
                "orders.dispatch",
                OrderHint(order=order_id, command=command),
                tenant=call.caller.tenant,
                timeout_ms=0,
            )
        except TickgateError as e:
            log.debug("order.hint_lost", order=order_id, error=str(e))

    task = asyncio.create_task(tell())
    _hints.add(task)
    task.add_done_callback(_hints.discard)


def _where(query: Message, names: tuple[str, ...]) -> dict[str, str]:
    given = {name: getattr(query, name) for name in names}
    return {name: str(value) for name, value in given.items() if value is not None}


def _asked_for(call: Call) -> str:
    order_id: str = call.request.path_params["id"]
    if len(order_id) != ORDER_ID_LENGTH or not order_id.isalnum() or not order_id.isupper():
        raise NotFound("no order can have this id", code="ORDER_NOT_FOUND")
    return order_id


def _one(entry: OrderEntry, status: int) -> Response:
    return Response(msgspec.json.encode(order_fields(entry)), status, media_type="application/json")
