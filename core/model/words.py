"""The words a record is found by, the same for every store: none of them cuts or bends them once more."""

import re
import unicodedata
from typing import Final

from core.errors.exceptions import Defect
from core.model.records import Body, Incident, MarketWindow

LETTERS_MAX: Final = 64
"""Of a word; what is longer is cut there."""
ASKED_MAX: Final = 64
"""Different words one search looks for; further ones are not."""
_WORD: Final = re.compile(r"[^\W_]+")


def normalised(text: str) -> str:
    """Return the text in Unicode's compatible form and in small letters."""
    return unicodedata.normalize("NFKC", text).lower()


def words(text: str) -> list[str]:
    """Return the words of a text in their order: letters and digits, without case."""
    return [word[:LETTERS_MAX] for word in _WORD.findall(normalised(text))]


def asked(text: str) -> list[str]:
    """Return the different words a search for this text looks for, at most ASKED_MAX."""
    return list(dict.fromkeys(words(text)))[:ASKED_MAX]


def words_of(body: Body) -> list[str]:
    """Return the words a record is found by."""
    if isinstance(body, Incident):
        return words(" ".join((body.message, body.service, body.category, body.resolution)))
    if isinstance(body, MarketWindow):
        return words(" ".join((body.symbol, body.interval, body.label)))
    raise Defect(f"a {type(body).__name__} has no words", code="NO_WORDS")
