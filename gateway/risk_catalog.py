"""The routes of risk: kill switches, limits, trading states."""

from typing import Any, Final

from core.model.principals import Scope
from gateway import risk
from gateway.contents import refused, shown
from gateway.parameters import NoParameters
from gateway.risk_shapes import (
    LimitsAnswer,
    LimitsPage,
    LimitsWish,
    PlaceQuery,
    StateAnswer,
    StatePage,
    StateWish,
    SwitchAnswer,
    SwitchPage,
    SwitchQuery,
    SwitchWish,
    TargetQuery,
    VersionPage,
    VersionQuery,
)
from gateway.routing import Endpoint, RateClass

BODY_BYTES_MAX: Final = 96 * 1024


_READ: Final[dict[str, Any]] = {"access": Scope.ORDERS_READ, "rate": RateClass.READ}
_SET: Final[dict[str, Any]] = {"access": Scope.RISK_ADMIN, "rate": RateClass.WRITE}
_NO_SWITCH: Final = refused("There is no such kill switch.")
_NO_PLACE: Final = refused("There is no such scope, or nothing is set here.")

ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/v1/kill-switches",
        handler=risk.engage,
        body=shown(SwitchWish),
        body_bytes_max=BODY_BYTES_MAX,
        idempotent=True,
        atomic=True,
        query=NoParameters,
        answers={201: shown(SwitchAnswer, "Location"), 404: refused("There is no such account.")},
        **_SET,
    ),
    Endpoint(
        method="GET",
        path="/v1/kill-switches",
        handler=risk.switches,
        query=SwitchQuery,
        answers={200: shown(SwitchPage)},
        **_READ,
    ),
    Endpoint(
        method="GET",
        path="/v1/kill-switches/{id}",
        handler=risk.switch,
        query=NoParameters,
        answers={200: shown(SwitchAnswer), 404: _NO_SWITCH},
        **_READ,
    ),
    Endpoint(
        method="DELETE",
        path="/v1/kill-switches/{id}",
        handler=risk.release,
        query=NoParameters,
        answers={200: shown(SwitchAnswer), 404: _NO_SWITCH},
        **_SET,
    ),
    Endpoint(
        method="GET",
        path="/v1/risk-limits",
        handler=risk.limits,
        query=PlaceQuery,
        answers={200: shown(LimitsPage)},
        **_READ,
    ),
    Endpoint(
        method="GET",
        path="/v1/risk-limits/{scope}/{id}",
        handler=risk.limits_of,
        query=TargetQuery,
        answers={200: shown(LimitsAnswer, "ETag"), 404: _NO_PLACE},
        **_READ,
    ),
    Endpoint(
        method="GET",
        path="/v1/risk-limits/{scope}/{id}/versions",
        handler=risk.versions,
        query=VersionQuery,
        answers={200: shown(VersionPage), 404: _NO_PLACE},
        **_READ,
    ),
    Endpoint(
        method="PUT",
        path="/v1/risk-limits/{scope}/{id}",
        handler=risk.set_limits,
        body=shown(LimitsWish),
        body_bytes_max=BODY_BYTES_MAX,
        headers=("If-Match",),
        query=TargetQuery,
        answers={200: shown(LimitsAnswer, "ETag"), 404: _NO_PLACE},
        **_SET,
    ),
    Endpoint(
        method="GET",
        path="/v1/trading-states",
        handler=risk.states,
        query=PlaceQuery,
        answers={200: shown(StatePage)},
        **_READ,
    ),
    Endpoint(
        method="GET",
        path="/v1/trading-states/{scope}/{id}",
        handler=risk.state_of,
        query=TargetQuery,
        answers={200: shown(StateAnswer), 404: _NO_PLACE},
        **_READ,
    ),
    Endpoint(
        method="PUT",
        path="/v1/trading-states/{scope}/{id}",
        handler=risk.set_state,
        body=shown(StateWish),
        body_bytes_max=BODY_BYTES_MAX,
        query=TargetQuery,
        answers={200: shown(StateAnswer), 404: _NO_PLACE},
        **_SET,
    ),
)
