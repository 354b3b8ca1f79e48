"""When losses stop an account: more lost today than it may lose, or too far below its peak. Pure.

The risk checks deny what would add to such an account; here it is said when the account is to be HALTED, which also
takes the decision to go on from the machine: nothing but a person makes it ACTIVE again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.model.risk import AccountFacts, RiskLimits, TradingState

Reason = tuple[str, str, Mapping[str, object]]
"""A code, why, and the numbers that decided it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The state that follows, and why. codes: of the limits that were passed."""

    state: TradingState
    codes: tuple[str, ...]
    reason: str


def stop_for(state: TradingState, account: AccountFacts, limits: RiskLimits) -> Stop | None:
    """Return what follows from an account's losses, None where its state stays as it is.

    Only an ACTIVE account is stopped: one that is REDUCING cannot lose by new positions, and a person who has chosen
    that to close what is left must not be halted over it again. Where the equity is not known nothing is said: the
    checks deny as long as that lasts, and a halt would outlast it.
    """
    if state is not TradingState.ACTIVE:
        return None
    if account.equity is None or account.day_start_equity is None or account.peak_equity is None:
        return None
    found = list(overdone(account.equity, account.day_start_equity, account.peak_equity, limits))
    if not found:
        return None
    told = "; ".join(f"{why} ({_numbers(numbers)})" for _, why, numbers in found)
    return Stop(state=TradingState.HALTED, codes=tuple(code for code, _, _ in found), reason=told)


def overdone(equity: Decimal, day_start: Decimal, peak: Decimal, limits: RiskLimits) -> Iterator[Reason]:
    """Yield each limit of losses that is passed. Exactly at a limit is allowed."""
    loss = day_start - equity
    if loss > limits.daily_loss_max:
        yield (
            "DAILY_LOSS",
            "the account has lost too much today",
            {"loss": loss, "max": limits.daily_loss_max},
        )
    if equity < peak * (1 - limits.drawdown_share_max):
        seen = {"equity": equity, "peak": peak, "share_max": limits.drawdown_share_max}
        yield "DRAWDOWN", "the account is too far below its peak", seen


def _numbers(numbers: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:f}" if isinstance(value, Decimal) else f"{name} {value}"
        for name, value in numbers.items()
    )
