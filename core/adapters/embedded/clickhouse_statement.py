"""What a statement asks for, read from its tokens: rows to insert, queries to kill, a format to answer in."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final, NamedTuple

from core.adapters.embedded.clickhouse_errors import NOT_IMPLEMENTED, EngineError, refusal

# Longer heads do not parse on a server either (its max_query_size).
HEAD_BYTES_MAX: Final = 256 * 1024

_TOKEN: Final = re.compile(
    rb"""\s+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?\*/
    | '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*`
    | [A-Za-z_][A-Za-z0-9_]* | [0-9]+ | .""",
    re.DOTALL | re.VERBOSE,
)
_BLANK: Final = (b" ", b"\t", b"\r", b"\n", b"\f", b"\v", b"--", b"#!", b"# ", b"/*")
_AFTER_INSERT_TARGET: Final = frozenset({b"SELECT", b"WITH", b"VALUES", b"FROM", b"WATCH", b"EXPLAIN"})
_READS: Final = frozenset({b"SELECT", b"WITH", b"FROM", b"("})
_ANSWERS: Final = _READS | {b"SHOW", b"DESCRIBE", b"DESC", b"EXPLAIN", b"EXISTS", b"CHECK"}
_AFTER_FORMAT: Final = frozenset({b";", b"SETTINGS"})
_KILL_MODES: Final = frozenset({b"SYNC", b"ASYNC", b"TEST"})


class Kind(Enum):
    """How a statement is run."""

    READ = "streamed to the caller"
    INSERT_DATA = "rows follow the statement in the body"
    KILL_QUERY = "answered from the registry of running queries"
    OTHER = "run at once, by the engine"


class Token(NamedTuple):
    """One token and where it lies. text: words in capitals, the rest as written."""

    text: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """sql: what the engine gets. format: as named in the statement. data_start: offset of inline rows.

    tail: the SETTINGS clause of an insert, which is no part of its `sql`.
    """

    kind: Kind
    sql: bytes
    format: str | None = None
    tail: bytes = b""
    data_start: int = 0
    condition: bytes = b""
    mode: bytes = b"ASYNC"
    answers: bool = True


def parse(head: bytes) -> Statement:
    """Read a statement. head: its first `HEAD_BYTES_MAX` bytes or all of it; inline rows may follow.

    Raises:
        EngineError: it names a file of the client's machine, which only a command-line client can read.
    """
    tokens = _tokens(head)
    first = next(tokens, Token(b"", 0, 0))
    if first.text == b"INSERT":
        return _insert(head, tokens)
    rest = [first, *tokens]
    _refuse_outfile(rest)
    if first.text == b"KILL" and len(rest) > 1 and rest[1].text == b"QUERY":
        return _kill(head, rest)
    kind = Kind.READ if first.text in _READS else Kind.OTHER
    return Statement(kind=kind, sql=head, format=_trailing_format(rest), answers=first.text in _ANSWERS)


def processes_references(sql: bytes) -> list[tuple[int, int]]:
    """Return where `system.processes` is named, as (start, end) offsets in order."""
    if b"processes" not in sql.lower():
        return []
    tokens = list(_tokens(sql))
    triples = zip(tokens, tokens[1:], tokens[2:], strict=False)
    return [
        (schema.start, table.end)
        for schema, dot, table in triples
        if dot.text == b"." and _name(schema) == b"system" and _name(table) == b"processes"
    ]


def _tokens(sql: bytes) -> Iterator[Token]:
    for match in _TOKEN.finditer(sql):
        text = match[0]
        if not text.startswith(_BLANK):
            yield Token(text.upper() if text[:1].isalpha() else text, match.start(), match.end())


def _name(token: Token) -> bytes:
    return token.text.strip(b'`"').lower()


def _insert(head: bytes, tokens: Iterator[Token]) -> Statement:
    depth = 0
    settings = 0
    previous = b"INSERT"
    for token in tokens:
        depth += (token.text == b"(") - (token.text == b")")
        # A table may be called `format`: the word counts only where no name can stand.
        is_name = previous in {b"INTO", b"TABLE", b"FUNCTION", b"."}
        previous = token.text
        if depth or is_name:
            continue
        if token.text == b"FORMAT":
            return _insert_data(
                head, settings or token.start, token, next(tokens, Token(b"", len(head), len(head)))
            )
        if token.text == b"SETTINGS":
            settings = settings or token.start
        if token.text in _AFTER_INSERT_TARGET:
            if token.text == b"FROM":
                raise _client_only("FROM INFILE")
            break
    return Statement(kind=Kind.OTHER, sql=head, answers=False)


def _insert_data(head: bytes, end: int, keyword: Token, name: Token) -> Statement:
    start = name.end
    while head[start : start + 1] in (b" ", b"\t", b"\f", b"\r"):
        start += 1
    start += head[start : start + 1] == b"\n"
    return Statement(
        kind=Kind.INSERT_DATA,
        sql=head[:end],
        tail=head[end : keyword.start],
        format=head[name.start : name.end].decode("ascii", "replace"),
        data_start=start,
        answers=False,
    )


def _kill(head: bytes, tokens: list[Token]) -> Statement:
    fmt = _trailing_format(tokens)
    where = next((i for i, token in enumerate(tokens) if token.text == b"WHERE"), len(tokens))
    end, mode = len(head), b"ASYNC"
    for token in reversed(tokens[where + 1 :]):
        if token.text in _KILL_MODES:
            mode, end = token.text, token.start
            break
        if token.text in {b"FORMAT", b";"}:
            end = token.start
    start = tokens[where].end if where < len(tokens) else end
    return Statement(kind=Kind.KILL_QUERY, sql=head, condition=head[start:end].strip(), mode=mode, format=fmt)


def _trailing_format(tokens: list[Token]) -> str | None:
    """Return the format named at the end. A column may be called `format`, so only the end counts."""
    for place in range(len(tokens) - 2, -1, -1):
        token = tokens[place]
        if token.text == b")":
            return None
        behind = tokens[place + 2].text if place + 2 < len(tokens) else b";"
        if token.text == b"FORMAT" and behind in _AFTER_FORMAT and tokens[place + 1].text[:1].isalpha():
            return _spelling(tokens[place + 1])
    return None


def _spelling(token: Token) -> str:
    return _FORMATS.get(token.text, token.text.decode("ascii", "replace"))


def _refuse_outfile(tokens: list[Token]) -> None:
    for token, following in pairwise(tokens):
        if token.text == b"INTO" and following.text == b"OUTFILE":
            raise _client_only("INTO OUTFILE")


def _client_only(what: str) -> EngineError:
    return refusal(NOT_IMPLEMENTED, f"{what} is for command-line clients, not for HTTP", "NOT_IMPLEMENTED")


# Format names are case-insensitive to the engine; callers compare with these spellings.
_FORMATS: Final = {
    name.upper().encode(): name
    for name in (
        *("Native", "Arrow", "ArrowStream", "Parquet", "RowBinary", "JSON", "JSONEachRow", "CSV", "TSV"),
        *("TabSeparated", "TabSeparatedRaw", "JSONCompactEachRow", "Null", "Values"),
    )
}
