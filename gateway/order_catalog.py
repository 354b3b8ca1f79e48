"""The routes of trading."""

from typing import Any, Final

import msgspec

from core.messages.message import Message
from core.model.principals import Scope
from gateway import order_stream, orders
from gateway.contents import JOB_CANCELLED, LATER, refused, shown
from gateway.order_shapes import (
    CanceledOrders,
    CancelWish,
    ChangeWish,
    EventPage,
    FillPage,
    FillQuery,
    OrderAnswer,
    OrderPage,
    OrderQuery,
    OrderWish,
    PositionPage,
    PositionQuery,
    StandingAnswer,
)
from gateway.parameters import NoParameters
from gateway.routing import Content, Endpoint, Handler, RateClass

BODY_BYTES_MAX: Final = 16 * 1024
DEADLINE_S: Final = 15.0


_NO_ORDER: Final = refused("There is no such order.")


def _reading(
    path: str,
    handler: Handler,
    query: type[Message],
    answer: type[msgspec.Struct],
    *,
    scope: Scope = Scope.ORDERS_READ,
    missing: str = "",
    paged: bool = False,
) -> Endpoint:
    found: dict[int, Content] = {
        200: shown(answer, *(("Link", "X-Next-Cursor") if paged else ())),
        202: LATER,
        409: JOB_CANCELLED,
    }
    if missing:
        found[404] = refused(missing)
    return Endpoint(
        method="GET",
        path=path,
        handler=handler,
        access=scope,
        rate=RateClass.READ,
        query=query,
        deadline_s=DEADLINE_S,
        answers=found,
    )


def _writing(
    path: str, handler: Handler, body: type[msgspec.Struct] | None, answer: type[msgspec.Struct], **more: Any
) -> Endpoint:
    content = None if body is None else shown(body)
    return Endpoint(
        method="POST",
        path=path,
        handler=handler,
        access=Scope.ORDERS_WRITE,
        rate=RateClass.WRITE,
        query=NoParameters,
        body=content,
        body_bytes_max=BODY_BYTES_MAX if content else 0,
        deadline_s=DEADLINE_S,
        idempotent=True,
        atomic=True,
        answers={
            202: shown(answer, *more.get("headers", ())),
            **more["told"],
        },
    )


ENDPOINTS: Final = (
    _writing(
        "/v1/orders",
        orders.submit,
        OrderWish,
        OrderAnswer,
        headers=("Location",),
        told={404: refused("There is no such account.")},
    ),
    _writing(
        "/v1/orders/cancel",
        orders.cancel_many,
        CancelWish,
        CanceledOrders,
        told={404: refused("There is no such account.")},
    ),
    _writing("/v1/orders/{id}/cancel", orders.cancel, None, OrderAnswer, told={404: _NO_ORDER}),
    _writing("/v1/orders/{id}/modify", orders.modify, ChangeWish, OrderAnswer, told={404: _NO_ORDER}),
    _reading("/v1/orders", orders.listed, OrderQuery, OrderPage, paged=True),
    Endpoint(
        method="GET",
        path="/v1/orders/stream",
        handler=order_stream.stream,
        access=Scope.ORDERS_READ,
        rate=RateClass.EXPORT,
        query=order_stream.StreamQuery,
        headers=("Last-Event-ID",),
        answers={200: Content(description="Events without end.", types=(order_stream.EVENT_STREAM,))},
    ),
    Endpoint(
        method="GET",
        path="/v1/audit",
        handler=order_stream.audit,
        access=Scope.AUDIT_READ,
        rate=RateClass.READ,
        query=order_stream.AuditQuery,
        answers={200: Content(description="A page of the audit trail.", schema=order_stream.AuditPage)},
    ),
    _reading("/v1/orders/{id}", orders.read, NoParameters, OrderAnswer, missing="There is no such order."),
    _reading(
        "/v1/orders/{id}/events", orders.events, NoParameters, EventPage, missing="There is no such order."
    ),
    _reading("/v1/fills", orders.fills, FillQuery, FillPage, paged=True),
    _reading("/v1/positions", orders.positions, PositionQuery, PositionPage),
    _reading(
        "/v1/accounts/{id}/standing",
        orders.standing,
        NoParameters,
        StandingAnswer,
        scope=Scope.ACCOUNTS_READ,
        missing="There is no such account.",
    ),
)
