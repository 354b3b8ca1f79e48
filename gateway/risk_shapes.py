"""The shapes of kill switches, limits and trading states on the wire."""

from typing import Annotated, Any, Final, Literal

import msgspec

from core.messages.message import Message
from core.model.risk import LimitScope, RiskLimits, SwitchScope, TradingState
from gateway import answers
from gateway.order_shapes import AmountText

PAGE_MAX: Final = 500
PAGE_DEFAULT: Final = 100

Reason = Annotated[
    str,
    msgspec.Meta(
        description="Why; for whoever asks later.", min_length=1, max_length=500, pattern=r"^[^\x00]+$"
    ),
]
SwitchId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
PlaceText = Annotated[
    str, msgspec.Meta(max_length=80, pattern=r"^(tenant|account|strategy|symbol)/[^\x00]*$")
]
TargetText = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
VersionText = Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]{0,17}$")]
Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Names = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=64)]], msgspec.Meta(max_length=1_000)
]


class SwitchWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kill switch to engage. id: of the account, or the strategy's name; of a tenant none."""

    scope: Literal["global", "tenant", "account", "strategy"]
    id: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None
    reason: Reason


class SwitchAnswer(msgspec.Struct, kw_only=True):
    """A kill switch."""

    id: SwitchId
    scope: SwitchScope
    target: str | None
    engaged: bool
    reason: str
    engaged_by: str
    engaged_at_ms: answers.EpochMs
    released_by: str | None
    released_at_ms: answers.EpochMs | None


class SwitchPage(msgspec.Struct, kw_only=True):
    """A page of kill switches, the latest first."""

    items: list[SwitchAnswer]
    next_cursor: answers.NextCursor


class LimitsWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a scope allows. Shares are of 1; a symbol that is restricted, or not among symbols, may not be traded."""

    submits_per_minute_max: Count | msgspec.UnsetType = msgspec.UNSET
    duplicate_window_ms: Count | msgspec.UnsetType = msgspec.UNSET
    volume_max: AmountText | msgspec.UnsetType = msgspec.UNSET
    notional_max: AmountText | msgspec.UnsetType = msgspec.UNSET
    account_notional_max: AmountText | msgspec.UnsetType = msgspec.UNSET
    position_max: AmountText | msgspec.UnsetType = msgspec.UNSET
    collar_share: AmountText | msgspec.UnsetType = msgspec.UNSET
    quote_age_ms_max: Count | msgspec.UnsetType = msgspec.UNSET
    spread_share_max: AmountText | msgspec.UnsetType = msgspec.UNSET
    margin_share_max: AmountText | msgspec.UnsetType = msgspec.UNSET
    daily_loss_max: AmountText | msgspec.UnsetType = msgspec.UNSET
    drawdown_share_max: AmountText | msgspec.UnsetType = msgspec.UNSET
    consecutive_rejects_max: Count | msgspec.UnsetType = msgspec.UNSET
    restricted: Names | msgspec.UnsetType = msgspec.UNSET
    symbols: Names | msgspec.UnsetType = msgspec.UNSET
    approval_needed: bool | msgspec.UnsetType = msgspec.UNSET


assert set(LimitsWish.__struct_fields__) == set(RiskLimits.__dataclass_fields__) - {"version"}


class LimitsAnswer(msgspec.Struct, kw_only=True):
    """What a scope allows, and who said so."""

    scope: LimitScope
    target: str | None
    version: int
    limits: LimitsWish
    author: str
    set_at_ms: answers.EpochMs


class LimitsPage(msgspec.Struct, kw_only=True):
    """Limits by scope. base: what holds for the whole tenant, defaults included; other scopes only tighten it."""

    items: list[LimitsAnswer]
    next_cursor: answers.NextCursor
    base: dict[str, Any]


class VersionPage(msgspec.Struct, kw_only=True):
    """What a scope has set, the newest first."""

    items: list[LimitsAnswer]
    next_cursor: answers.NextCursor


class StateWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trading state to set."""

    state: TradingState
    reason: Reason


class StateAnswer(msgspec.Struct, kw_only=True):
    """A trading state."""

    scope: SwitchScope
    target: str | None
    state: TradingState
    version: int
    reason: str
    author: str
    set_at_ms: answers.EpochMs


class StatePage(msgspec.Struct, kw_only=True):
    """The trading states that were set."""

    items: list[StateAnswer]
    next_cursor: answers.NextCursor


class SwitchQuery(Message, frozen=True, kw_only=True):
    """One page of kill switches."""

    cursor: SwitchId | None = None
    limit: Limit = PAGE_DEFAULT


class PlaceQuery(Message, frozen=True, kw_only=True):
    """One page of limits or states, by scope and target."""

    cursor: PlaceText | None = None
    limit: Limit = PAGE_DEFAULT


class TargetQuery(Message, frozen=True, kw_only=True):
    """Which target, where the path cannot name it."""

    of: TargetText | None = None


class VersionQuery(Message, frozen=True, kw_only=True):
    """One page of versions."""

    of: TargetText | None = None
    cursor: VersionText | None = None
    limit: Limit = PAGE_DEFAULT
