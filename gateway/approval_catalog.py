"""The routes of approvals."""

from typing import Final

from core.model.principals import Scope
from gateway import approvals
from gateway.approval_shapes import ApprovalAnswer, ApprovalPage, ApprovalQuery, ApprovalWish
from gateway.contents import refused, shown
from gateway.parameters import NoParameters
from gateway.routing import Endpoint, RateClass

BODY_BYTES_MAX: Final = 8 * 1024
_NO_APPROVAL: Final = refused("There is no such approval.")

ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/v1/approvals",
        handler=approvals.grant,
        access=Scope.ORDERS_APPROVE,
        rate=RateClass.WRITE,
        query=NoParameters,
        body=shown(ApprovalWish),
        body_bytes_max=BODY_BYTES_MAX,
        idempotent=True,
        atomic=True,
        answers={201: shown(ApprovalAnswer, "Location"), 404: refused("There is no such order.")},
    ),
    Endpoint(
        method="GET",
        path="/v1/approvals",
        handler=approvals.listed,
        access=Scope.ORDERS_READ,
        rate=RateClass.READ,
        query=ApprovalQuery,
        answers={200: shown(ApprovalPage)},
    ),
    Endpoint(
        method="GET",
        path="/v1/approvals/{id}",
        handler=approvals.one,
        access=Scope.ORDERS_READ,
        rate=RateClass.READ,
        query=NoParameters,
        answers={200: shown(ApprovalAnswer), 404: _NO_APPROVAL},
    ),
    Endpoint(
        method="DELETE",
        path="/v1/approvals/{id}",
        handler=approvals.revoke,
        access=Scope.ORDERS_APPROVE,
        rate=RateClass.WRITE,
        query=NoParameters,
        answers={
            200: shown(ApprovalAnswer),
            404: _NO_APPROVAL,
            409: refused("An order was sent by it."),
        },
    ),
)
