"""The order of values in AQL: null, booleans, numbers, text, lists, objects; text by a language's rules.

ArangoDB compares text with ICU. For ASCII that is: punctuation before digits before letters, letters without regard to
case, and only where all else is the same lower case first. Source: AQL, "Type and value order"; Unicode UCA.
"""

from typing import Any


def rank(value: Any) -> tuple[Any, ...]:
    """Return what sorts as the value does."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, int | float):
        return (2, value)
    if isinstance(value, str):
        return (3, *_text(value))
    if isinstance(value, list):
        return (4, [rank(item) for item in value])
    return (5, [(name, rank(value[name])) for name in sorted(value)])


def _text(text: str) -> tuple[Any, ...]:
    primary = [(2 if c.isalpha() else 1 if c.isdigit() else 0, c.lower()) for c in text]
    return primary, [c.isupper() for c in text], text
