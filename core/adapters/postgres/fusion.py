"""Two rankings of the same records made one, by how far each score lies between its ranking's worst and best.

Source: Weaviate's relative score fusion.
"""

from collections.abc import Mapping


def fused(by_vector: Mapping[str, float], by_words: Mapping[str, float], weight: float) -> dict[str, float]:
    """Return a score of 0 to 1 for each id of either ranking. weight: of the vector; the words have the rest."""
    scores: dict[str, float] = {}
    for ranking, share in ((by_vector, weight), (by_words, 1 - weight)):
        for key, score in _relative(ranking).items():
            scores[key] = scores.get(key, 0.0) + share * score
    return scores


def _relative(ranking: Mapping[str, float]) -> dict[str, float]:
    if not ranking:
        return {}
    worst, best = min(ranking.values()), max(ranking.values())
    if worst == best:
        return dict.fromkeys(ranking, 1.0)
    return {key: (score - worst) / (best - worst) for key, score in ranking.items()}
