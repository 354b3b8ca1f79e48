"""From when on a venue is asked for deals: from the last look on, with an overlap; now and then from much earlier.

Deals are dated by clocks of others: the trade server's, and the connector's that it is measured against. Each may be
wrong for a while, or be set. So none of them moves the beginning beyond our own clock, and what was dated too early to
be seen is found by the looks that go further back. What is known already costs little: deals are told apart by ticket.
"""

from dataclasses import dataclass, field
from typing import Final

OVERLAP_MS: Final = 60_000
"""Deals are asked for from so long before the last look: venues write some down late."""
FAR_MS: Final = 86_400_000
"""So far back goes a far look: further than a trade server's clock can be wrong."""
FAR_INTERVAL_S: Final = 600.0
FAR_PAUSE_S: Final = 10.0
"""Between two far looks, however much there is to wonder about."""
BACK_MS_MAX: Final = 7 * 86_400_000
"""No clock takes the beginning further back."""


@dataclass(slots=True)
class Hindsight:
    """When accounts were looked at from far back, and whether there is something to wonder about."""

    _looked_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _puzzled: set[tuple[str, str]] = field(default_factory=set)

    def is_far(self, account: tuple[str, str], now_s: float) -> bool:
        """Tell whether the next look is to go far back: the first one is."""
        pause_s = FAR_PAUSE_S if account in self._puzzled else FAR_INTERVAL_S
        looked_s = self._looked_s.get(account)
        return looked_s is None or now_s - looked_s >= pause_s

    def looked(self, account: tuple[str, str], now_s: float) -> None:
        """Note that the account was looked at from far back."""
        self._looked_s[account] = now_s
        self._puzzled.discard(account)

    def wonder(self, account: tuple[str, str]) -> None:
        """Look far back soon: something is there that the deals we know do not explain."""
        self._puzzled.add(account)


def since_ms(until_ms: int, *, far: bool) -> int:
    """Return from when on to ask. until_ms: where the last look ended; 0 where there was none."""
    return max(0, until_ms - (FAR_MS if far else OVERLAP_MS))


def until_ms(shown_at_ms: int, now_ms: int) -> int:
    """Return where a look ended. shown_at_ms: by the venue's clock; now_ms: by ours.

    One that is ahead counts as ours, or deals until then would be skipped once it is put right. One that is behind
    counts as it is, because deals are dated by it, too.
    """
    return max(now_ms - BACK_MS_MAX, min(shown_at_ms, now_ms))
