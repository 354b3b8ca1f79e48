"""Put tick rows together. numpy's own concatenate compares the field names of every part, 10 us each."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from core.model.ticks import TICK_DTYPE, Ticks

EMPTY: Final[Ticks] = np.empty(0, TICK_DTYPE)


def join(parts: Sequence[Ticks]) -> Ticks:
    """Return all rows of `parts` in order, read-only when there are several parts."""
    if len(parts) == 1:
        return parts[0]
    return np.frombuffer(b"".join([part.tobytes() for part in parts]), TICK_DTYPE)
