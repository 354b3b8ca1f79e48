"""How the double ranks: cosine distances, BM25, and the two fused by relative scores."""

import math
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.weaviate_double.store import Collection, Refused, Stored

HYBRID_LIMIT_MIN = 100
_TOKENS = {
    "word": lambda text: re.findall(r"[^\W_]+", text.lower()),
    "lowercase": lambda text: text.lower().split(),
    "whitespace": lambda text: text.split(),
    "field": lambda text: [text.strip()],
}
Ranking = list[tuple[Stored, float]]


def nearest(objects: Iterable[Stored], vector: Sequence[float], limit: int) -> Ranking:
    """Return the objects with the least cosine distance, and it."""
    found = []
    for stored in objects:
        if stored.vector is None:
            continue
        if len(stored.vector) != len(vector):
            raise Refused(f"vector lengths don't match: {len(stored.vector)} vs {len(vector)}")
        found.append((stored, _distance(stored.vector, vector)))
    found.sort(key=lambda one: (one[1], one[0].id))
    return found[:limit]


def worded(
    collection: Collection,
    shard: Iterable[Stored],
    allowed: Mapping[uuid.UUID, Stored],
    query: str,
    properties: Sequence[str],
    limit: int,
) -> Ranking:
    """Return the allowed objects with the best BM25 score, and it; how rare a word is counts over the whole shard."""
    objects = list(shard)
    names = list(properties) or [name for name, one in collection.properties.items() if _searchable(one)]
    scores: Counter[uuid.UUID] = Counter()
    for name in names:
        described = collection.property(name)
        if not _searchable(described):
            raise Refused(f"Searching by property '{name}' requires inverted index")
        tokens = _TOKENS[described.get("tokenization", "word")]
        texts = {one.id: tokens(one.properties.get(name, "")) for one in objects}
        for key, score in _bm25(texts, tokens(query), **collection.bm25).items():
            scores[key] += score
    found = [(allowed[key], score) for key, score in scores.items() if key in allowed]
    found.sort(key=lambda one: (-one[1], one[0].id))
    return found[:limit]


def fused(near: Ranking, by_words: Ranking, alpha: float, limit: int, *, ranked: bool) -> Ranking:
    """Return both rankings as one. near: distances, the least first; ranked: by places, not by scores."""
    objects: dict[uuid.UUID, Stored] = {}
    scores: Counter[uuid.UUID] = Counter()
    similar = [(stored, 1 - distance) for stored, distance in near]
    for ranking, share in ((similar, alpha), (by_words, 1 - alpha)):
        if share <= 0:
            continue
        values = [value for _, value in ranking]
        for place, (stored, value) in enumerate(ranking):
            spread = max(values) - min(values)
            relative = (value - min(values)) / spread if spread else 1.0
            objects[stored.id] = stored
            scores[stored.id] += share * (1 / (place + 60) if ranked else relative)
    order = sorted(scores, key=lambda key: (-scores[key], key))
    return [(objects[key], scores[key]) for key in order[:limit]]


def _searchable(described: Mapping[str, Any]) -> bool:
    return described["dataType"] == ["text"] and bool(described.get("indexSearchable", True))


def _bm25(
    texts: Mapping[uuid.UUID, list[str]], asked: Iterable[str], *, k1: float, b: float
) -> dict[uuid.UUID, float]:
    scores: dict[uuid.UUID, float] = {}
    mean = sum(map(len, texts.values())) / max(1, len(texts))
    for word in dict.fromkeys(asked):
        holders = {key: text.count(word) for key, text in texts.items() if word in text}
        rarity = math.log(1 + (len(texts) - len(holders) + 0.5) / (len(holders) + 0.5))
        for key, often in holders.items():
            length = len(texts[key]) / mean
            scores[key] = scores.get(key, 0.0) + rarity * often * (k1 + 1) / (
                often + k1 * (1 - b + b * length)
            )
    return scores


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    if not lengths:
        return 1.0
    return 1 - sum(a * b for a, b in zip(one, other, strict=True)) / lengths
