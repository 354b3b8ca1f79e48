"""What a risk check is told: limits somebody set and facts somebody gathered. What is not known is None, and denies."""

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from core.model.orders import OrderType, Side, TimeInForce


class TradingState(StrEnum):
    """What the house lets happen. REDUCING: only what makes a position smaller."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentTerms:
    """What the venue says of a symbol. Volumes in lots; *_level: least distance from the market price, in price.

    volume_limit: of all positions and working orders in one direction, None for none.
    """

    tradable: bool
    session_open: bool
    tick_size: Decimal
    contract_size: Decimal
    volume_min: Decimal
    volume_max: Decimal
    volume_step: Decimal
    volume_limit: Decimal | None = None
    stops_level: Decimal = Decimal(0)
    freeze_level: Decimal = Decimal(0)
    types: frozenset[OrderType] = frozenset(OrderType)
    times_in_force: frozenset[TimeInForce] = frozenset(TimeInForce)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteSeen:
    """The newest quote of the symbol. time_ms: UTC epoch milliseconds."""

    bid: Decimal
    ask: Decimal
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What an account holds of one symbol, working orders included. position: signed lots, long above 0."""

    position: Decimal = Decimal(0)
    working_buys: Decimal = Decimal(0)
    working_sells: Decimal = Decimal(0)

    def worst(self, side: Side, volume: Decimal) -> Decimal:
        """Return the signed position if this order and every working one on its side were filled."""
        working = self.working_buys if side is Side.BUY else self.working_sells
        return self.position + side.sign * (working + volume)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """How an account stands, in its currency. margin_needed: for this order, as its venue computes it.

    day_start_equity, peak_equity: at the start of the trading day, and the highest ever.
    """

    enabled: bool
    connected: bool
    equity: Decimal | None = None
    margin_free: Decimal | None = None
    margin_needed: Decimal | None = None
    day_start_equity: Decimal | None = None
    peak_equity: Decimal | None = None
    consecutive_rejects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalSeen:
    """The approval an order names, as it stands. known: there is one. own: whoever submits has granted it.

    unlike: the order's fields that are not as they were approved. The rest as `Approval` has it.
    """

    id: str
    known: bool
    expires_at_ms: int = 0
    used_by: str | None = None
    revoked_by: str | None = None
    own: bool = False
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskFacts:
    """Everything that is known when the order is judged. exposure, notional: None where they could not be read.

    halts: kill switches that cover the order, by scope and id; id_used: its client order id was seen before; twins: how
    many like it came within the duplicate window; submits: those of the last minute; notional: of the account's
    positions and working orders, in its currency; quote_rate: the account's currency for one of the quote currency;
    approval: the one it names, None where it names none. reducible: what the order could make smaller, where that is
    not all there is of its symbol: on a hedging account it is the position the order names.
    """

    at_ms: int
    state: TradingState
    reconciling: bool = False
    halts: tuple[str, ...] = ()
    account: AccountFacts | None = None
    terms: InstrumentTerms | None = None
    quote: QuoteSeen | None = None
    quote_rate: Decimal | None = None
    exposure: Exposure | None = None
    reducible: Exposure | None = None
    notional: Decimal | None = None
    id_used: bool = False
    twins: int = 0
    submits: int = 0
    approval: ApprovalSeen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskLimits:
    """What somebody allows. version: of the set of limits. Shares are of 1: a collar of 0.02 is two per cent.

    margin_share_max: of the free margin one order may need. symbols: those allowed, None for all but the restricted.
    """

    version: int = 0
    submits_per_minute_max: int = 60
    duplicate_window_ms: int = 2_000
    volume_max: Decimal = Decimal(10)
    notional_max: Decimal = Decimal(1_000_000)
    account_notional_max: Decimal = Decimal(5_000_000)
    position_max: Decimal = Decimal(50)
    collar_share: Decimal = Decimal("0.02")
    quote_age_ms_max: int = 5_000
    spread_share_max: Decimal = Decimal("0.01")
    margin_share_max: Decimal = Decimal("0.8")
    daily_loss_max: Decimal = Decimal(10_000)
    drawdown_share_max: Decimal = Decimal("0.2")
    consecutive_rejects_max: int = 5
    restricted: frozenset[str] = field(default_factory=frozenset)
    symbols: frozenset[str] | None = None
    approval_needed: bool = False


OPERATORS: Final = "operator:"
"""How the operator is named as an author; a caller of the API has the name of its kind there, and never this one."""


class LimitScope(StrEnum):
    """What a set of limits is of. The tenant's replace the defaults, the others only make them stricter."""

    TENANT = "tenant"
    ACCOUNT = "account"
    STRATEGY = "strategy"
    SYMBOL = "symbol"


class SwitchScope(StrEnum):
    """What a kill switch halts. GLOBAL: everybody's trading."""

    GLOBAL = "global"
    TENANT = "tenant"
    ACCOUNT = "account"
    STRATEGY = "strategy"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSet:
    """One version of what somebody allows. target: the account, strategy or symbol; limits: the fields it sets."""

    scope: LimitScope
    target: str
    version: int
    limits: dict[str, Any]
    author: str
    set_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSet:
    """A trading state somebody has set."""

    scope: SwitchScope
    target: str
    state: TradingState
    version: int
    reason: str
    author: str
    set_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSwitch:
    """A kill switch. tenant: "" of everybody; released_at_ms: None while it holds."""

    id: str
    tenant: str
    scope: SwitchScope
    target: str
    reason: str
    engaged_by: str
    engaged_at_ms: int
    released_by: str | None = None
    released_at_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """What somebody lets no longer happen, for who enforces it. tenant: "" of everybody; state: of a switch HALTED."""

    tenant: str
    scope: SwitchScope
    target: str
    state: TradingState


@dataclass(frozen=True, slots=True, kw_only=True)
class Halted:
    """What keeps an order from being sent. by: switches and HALTED states that cover it, by scope and id; reducing:
    REDUCING states that do. at_ms: when that was looked at, by the ledger's clock.
    """

    at_ms: int
    by: tuple[str, ...]
    reducing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskRules:
    """What holds for an order: the strictest limits and the worst state of every scope; halts: by scope and id."""

    limits: RiskLimits
    state: TradingState
    halts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why an order is not sent. check: its place among the checks, from 1; numbers: what decided it, as text."""

    check: int
    code: str
    reason: str
    numbers: dict[str, str]

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value}" for name, value in self.numbers.items())
        return f"{self.code}, {self.reason}" + (f" ({numbers})" if numbers else "")
