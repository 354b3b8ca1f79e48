"""Vectors made by us: hashed n-grams of incidents, returns of market windows. No model, no training, no network.

The same record has the same vector in every process, for ever: stored vectors are compared with new ones. Whoever
changes what is made here writes a migration that makes all of them anew.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import log, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from core.errors.exceptions import Defect
from core.model.records import Body, Incident, MarketWindow, RecordKind
from core.model.words import normalised

INCIDENT_BUCKETS: Final = 256
WINDOW_RETURNS: Final = 64
DIMENSIONS: Final[dict[RecordKind, int]] = {
    RecordKind.INCIDENTS: INCIDENT_BUCKETS,
    # The last one says that nothing moved.
    RecordKind.MARKET_WINDOWS: WINDOW_RETURNS + 1,
}

WORDS_SHARE: Final = 0.5
LETTERS_SHARE: Final = 0.25
SERVICE_SHARE: Final = 0.125
CATEGORY_SHARE: Final = 0.125
"""What each part of an incident has of its vector's square; together 1."""
FLAT_RANGE: Final = 1e-12
"""Logarithms of prices that span less are one price."""

_NUMBER: Final = "#"
_UNSTEADY: Final = re.compile(
    r"\b0x[0-9a-f]+\b"
    # Hex of eight or more, an identifier in groups, letters and digits in turns: who it was, not what it was.
    r"|\b(?=[a-f]*\d)[0-9a-f]{8,}\b(?:-[0-9a-f]{4,}\b)*"
    r"|\b(?:\d+[a-z]+){2,}\d*\b|\b(?:[a-z]+\d+){2,}[a-z]*\b"
    r"|\d+(?:[.,:]\d+)*"
)
_TOKEN: Final = re.compile(rf"{_NUMBER}|[^\W\d_]+")
Array = npt.NDArray[np.float64]


def vector_of(body: Body) -> list[float]:
    """Return the vector of an incident or a market window: of length 1, float32, as many as its kind's DIMENSIONS."""
    if isinstance(body, Incident):
        return _unit(_incident(body))
    if isinstance(body, MarketWindow):
        return _unit(_window(body.closes))
    raise Defect(f"a {type(body).__name__} has no vector", code="NO_VECTOR")


def _incident(body: Incident) -> Array:
    tokens = _steady_tokens(body.message)
    words = [f"w {token}" for token in tokens]
    words += [f"b {first} {second}" for first, second in pairwise(tokens)]
    letters = [f"l {gram}" for token in tokens for gram in _trigrams(token)]
    return (
        sqrt(WORDS_SHARE) * _hashed(words)
        + sqrt(LETTERS_SHARE) * _hashed(letters)
        + sqrt(SERVICE_SHARE) * _hashed([f"s {body.service}"])
        + sqrt(CATEGORY_SHARE) * _hashed([f"c {body.category}"])
    )


def _steady_tokens(message: str) -> list[str]:
    """Return the words of a message with every number and identifier the same: `31 ms`, `29ms` are `# ms`."""
    return _TOKEN.findall(_UNSTEADY.sub(f" {_NUMBER} ", normalised(message)))


def _trigrams(token: str) -> Iterable[str]:
    padded = f"^{token}$"
    return (padded[at : at + 3] for at in range(len(padded) - 2))


def _hashed(features: Iterable[str]) -> Array:
    """Add each feature to the bucket its hash names, with the sign its hash names; of length 1 unless empty.

    A feature that is there n times counts 1 + ln n. Source: Weinberger et al., Feature Hashing, 2009.
    """
    buckets = np.zeros(INCIDENT_BUCKETS)
    for feature, count in Counter(features).items():
        name = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "big")
        sign = 1.0 if name & 1 else -1.0
        buckets[(name >> 1) % INCIDENT_BUCKETS] += sign * (1 + log(count))
    return _scaled(buckets)


def _window(closes: Sequence[float]) -> Array:
    """Return the window's logarithmic returns over WINDOW_RETURNS equal stretches of it, and whether it is flat.

    Neither the level nor the size of the move is in it once it has length 1. The mean is not taken out: a steady
    climb and a steady fall would be the same, and nothing.
    """
    path = np.log(np.asarray(closes, dtype=np.float64))
    path -= path[0]
    if np.ptp(path) < FLAT_RANGE:
        return np.append(np.zeros(WINDOW_RETURNS), 1.0)
    ends = np.linspace(0, len(path) - 1, WINDOW_RETURNS + 1)
    returns = np.diff(np.interp(ends, np.arange(len(path)), path))
    return np.append(returns, 0.0)


def _scaled(values: Array) -> Array:
    length = float(np.linalg.norm(values))
    return values / length if length > 0 else values


def _unit(values: Array) -> list[float]:
    scaled = _scaled(values)
    if not scaled.any():
        # Opposite signs met in every bucket, or a move came back between two of its points.
        scaled[-1] = 1.0
    unit: list[float] = scaled.astype(np.float32).tolist()
    return unit
