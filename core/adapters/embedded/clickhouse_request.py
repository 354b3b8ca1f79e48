"""A request in ClickHouse's HTTP interface: who asks, under which id, with which settings and tables."""

import hmac
import uuid
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from aiohttp import BodyPartReader, web

from core.adapters.embedded.clickhouse_body import read_body
from core.adapters.embedded.clickhouse_errors import (
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    NOT_IMPLEMENTED,
    EngineError,
    refusal,
)

# Parameters that speak to the transport; every other one is a setting of the query.
_TRANSPORT: Final = frozenset(
    {
        *("query", "database", "user", "password", "query_id", "default_format", "wait_end_of_query"),
        *("session_id", "session_timeout", "session_check", "quota_key", "role", "stacktrace"),
        *("buffer_size", "client_protocol_version", "enable_http_compression", "http_zlib_compression_level"),
        *("send_progress_in_http_headers", "http_headers_progress_interval_ms"),
        *("cancel_http_readonly_queries_on_client_close", "compress", "decompress", "log_comment"),
    }
)
_TABLE_PARTS: Final = ("_structure", "_types", "_format")
_OFF: Final = frozenset({"", "0", "false"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTable:
    """A table the client sends along with its query."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, read to its end. pieces: the statement and what follows it, decoded."""

    pieces: list[bytes]
    database: str
    settings: dict[str, str]
    default_format: str
    session_id: str
    session_timeout_s: float
    wait_for_end: bool
    compressed: bool
    tables: list[ExternalTable] = field(default_factory=list)


def query_id(request: web.Request) -> str:
    return request.query.get("query_id") or request.headers.get("X-ClickHouse-Query-Id") or str(uuid.uuid4())


def authenticate(request: web.Request, user: str, password: str) -> None:
    """Let the one user in, by header, Basic or parameter.

    Raises:
        EngineError: anybody else; it does not say which half was wrong.
    """
    name, key = _credentials(request)
    right_name = hmac.compare_digest(name.encode(), user.encode())
    if not (hmac.compare_digest(key.encode(), password.encode()) and right_name):
        raise refusal(
            AUTHENTICATION_FAILED,
            f"{name or 'default'}: Authentication failed: password is incorrect, "
            "or there is no user with such name.",
            "AUTHENTICATION_FAILED",
        )


def _credentials(request: web.Request) -> tuple[str, str]:
    if "X-ClickHouse-User" in request.headers:
        return request.headers["X-ClickHouse-User"], request.headers.get("X-ClickHouse-Key", "")
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, key = b64decode(credentials, validate=True).decode().partition(":")
        except (Base64Error, UnicodeDecodeError):
            return "", ""
        return name, key
    return request.query.get("user", ""), request.query.get("password", "")


async def read(request: web.Request) -> Asked:
    """Read a request whole.

    Raises:
        EngineError: it cannot be decoded. OSError: the client went away in the middle of it.
    """
    parameters = dict(request.query)
    for native in ("compress", "decompress"):
        if parameters.get(native, "0") not in _OFF:
            raise refusal(
                NOT_IMPLEMENTED, f"{native}=1: use Content-Encoding and Accept-Encoding", "NOT_IMPLEMENTED"
            )
    parts: dict[str, bytes] = {}
    if request.content_type == "multipart/form-data":
        body: list[bytes] = []
        parts = await _read_form(request, parameters)
    else:
        body = await read_body(request.content.iter_any(), request.headers.get("Content-Encoding", ""))
    return _asked(request, parameters, body, parts)


def _asked(
    request: web.Request, parameters: dict[str, str], body: list[bytes], parts: dict[str, bytes]
) -> Asked:
    text = parameters.get("query", "").encode()
    pieces = body
    if text:
        # As a server does it: the statement of the URL comes first, whatever the body holds goes on from it.
        pieces = [text + b"\n", *body]
    tables = [_table(name, data, parameters) for name, data in parts.items()]
    not_settings = _TRANSPORT | {table.name + part for table in tables for part in _TABLE_PARTS}
    return Asked(
        pieces=pieces,
        database=parameters.get("database") or request.headers.get("X-ClickHouse-Database") or "",
        settings={name: value for name, value in parameters.items() if name not in not_settings},
        default_format=parameters.get("default_format")
        or request.headers.get("X-ClickHouse-Format")
        or "TabSeparated",
        session_id=parameters.get("session_id", ""),
        session_timeout_s=_seconds(parameters.get("session_timeout", "60")),
        wait_for_end=parameters.get("wait_end_of_query", "0") not in _OFF,
        compressed=parameters.get("enable_http_compression", "0") not in _OFF,
        tables=tables,
    )


async def _read_form(request: web.Request, parameters: dict[str, str]) -> dict[str, bytes]:
    """Read a form: parts with a file name are tables, the others are parameters."""
    tables: dict[str, bytes] = {}
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or not part.name:
            raise refusal(BAD_ARGUMENTS, "Every part of the form needs a name", "BAD_ARGUMENTS")
        data = b"".join(await read_body(_chunks_of(part), ""))
        if part.filename is None:
            parameters[part.name] = data.decode()
        else:
            tables[part.name] = data
    return tables


async def _chunks_of(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(64 * 1024):
        yield bytes(chunk)


def _table(name: str, data: bytes, parameters: dict[str, str]) -> ExternalTable:
    structure = parameters.get(f"{name}_structure", "")
    if not structure:
        types = parameters.get(f"{name}_types", "")
        structure = ", ".join(f"_{i} {kind}" for i, kind in enumerate(types.split(","), start=1) if kind)
    if not structure:
        raise _bad(f"External table {name} needs {name}_structure or {name}_types")
    return ExternalTable(
        name=name, structure=structure, format=parameters.get(f"{name}_format", "TabSeparated"), data=data
    )


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _bad(f"Not a number of seconds: {text!r}") from None


def _bad(sentence: str) -> EngineError:
    return refusal(BAD_ARGUMENTS, sentence, "BAD_ARGUMENTS")
