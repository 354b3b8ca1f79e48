"""The errors the embedded ClickHouse answers with: the engine's code and text, and the HTTP status."""

import re
from typing import Final

_CODE: Final = re.compile(r"Code: (\d+)\. (DB::Exception: .*)", re.DOTALL)

AUTHENTICATION_FAILED: Final = 516
BAD_ARGUMENTS: Final = 36
CANNOT_PARSE_INPUT: Final = 27
LOGICAL_ERROR: Final = 49
NOT_IMPLEMENTED: Final = 48
QUERY_IS_TOO_LARGE: Final = 223
QUERY_WAS_CANCELLED: Final = 394
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: Final = 216
SESSION_IS_LOCKED: Final = 373
SESSION_NOT_FOUND: Final = 372
SYNTAX_ERROR: Final = 62
TIMEOUT_EXCEEDED: Final = 159
TOO_MANY_SIMULTANEOUS_QUERIES: Final = 202
UNKNOWN_COMPRESSION_METHOD: Final = 89

# As a server answers them; whatever is not here is 500.
_STATUS: Final[dict[int, int]] = {
    AUTHENTICATION_FAILED: 403,
    QUERY_IS_TOO_LARGE: 413,
    NOT_IMPLEMENTED: 501,
    TIMEOUT_EXCEEDED: 408,
    # Malformed statement or data.
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 43, 44, 53, 62, 69, 72, 117, 130, 131, 168, 321, 456), 400),
    # Unknown table, column, function, type, setting, database and the like.
    **dict.fromkeys((16, 46, 47, 50, 56, 60, 63, 73, 81, 108, 115, 119, 336), 404),
}


class EngineError(Exception):
    """A failure in ClickHouse's own terms. text: begins with `DB::Exception: `."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 500)

    @property
    def body(self) -> str:
        return f"Code: {self.code}. {self.text}\n"


def refusal(code: int, sentence: str, name: str) -> EngineError:
    """Build an error of our own in the shape of the engine's."""
    return EngineError(code, f"DB::Exception: {sentence} ({name})")


def cancelled() -> EngineError:
    return refusal(QUERY_WAS_CANCELLED, "Query was cancelled.", "QUERY_WAS_CANCELLED")


def from_engine(error: Exception) -> EngineError:
    """Read code and text out of what the engine raised."""
    found = _CODE.search(str(error))
    if found is None:
        return refusal(LOGICAL_ERROR, f"{error}".strip(), "LOGICAL_ERROR")
    return EngineError(int(found[1]), found[2].strip())
