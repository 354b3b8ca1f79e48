"""Request bodies, bounded in size and time."""

import asyncio
import re
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from core.errors.exceptions import Invalid
from gateway.problems import Unfit
from gateway.routing import Call
from gateway.spellings import spelled

Read = TypeVar("Read", bound=msgspec.Struct)

BODY_TIMEOUT_S: Final = 5.0
JSON_TYPE: Final = "application/json"
FRAMING_HEADERS: Final = frozenset({b"content-length", b"content-encoding", b"transfer-encoding"})
_FIELD: Final = re.compile(r"(.*?) - at `\$\.?([\w\[\].]*)", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]{1,64})`")
_MISSING: Final = re.compile(r"missing required field `(\w+)`")


def _number(text: str) -> int | float:
    """JSON knows no integers: 5.0 is as good as 5. Source: JSON Schema 2020-12, section 4.2.3."""
    value = float(text)
    return int(value) if value.is_integer() else value


_decode: Final = msgspec.json.Decoder(float_hook=_number).decode


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the whole body; with `bytes_max` 0 there must be none.

    Raises:
        Invalid: encoded (BODY_ENCODED), too large (BODY_TOO_LARGE), too slow (BODY_TOO_SLOW) or not what its
            framing says (BODY_BROKEN).
    """
    told = {name: value for name, value in request.scope["headers"] if name in FRAMING_HEADERS}
    length, encoding = told.get(b"content-length", b""), told.get(b"content-encoding", b"identity")
    if bytes_max == 0:
        # Nothing here reads it, but something in front of us might; a body nobody expects is a second request.
        if length.strip(b"0") or b"transfer-encoding" in told:
            raise Invalid("this route takes no body", code="BODY_TOO_LARGE")
        return b""
    if encoding != b"identity":
        raise Invalid("encoded bodies are not taken", code="BODY_ENCODED")
    if length.isdigit() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _whole(request.receive, bytes_max)
    except TimeoutError as e:
        raise Invalid(f"the body did not arrive within {BODY_TIMEOUT_S:g} s", code="BODY_TOO_SLOW") from e
    except ClientDisconnect as e:
        raise Invalid("the body ended too early, or its chunks are none", code="BODY_BROKEN") from e


async def _whole(receive: Receive, bytes_max: int) -> bytes:
    message = await receive()
    body = message.get("body", b"")
    if message["type"] != "http.disconnect" and not message.get("more_body") and len(body) <= bytes_max:
        return bytes(body)
    gathered = bytearray()
    while message["type"] != "http.disconnect":
        gathered += message.get("body", b"")
        if len(gathered) > bytes_max:
            raise _too_large(bytes_max)
        if not message.get("more_body"):
            return bytes(gathered)
        message = await receive()
    raise ClientDisconnect


def _too_large(bytes_max: int) -> Invalid:
    return Invalid(f"the body may hold at most {bytes_max} bytes", code="BODY_TOO_LARGE")


def parse_json(call: Call, kind: type[Read]) -> Read:
    """Return the body as `kind`.

    Raises:
        Invalid: it is of another type (BODY_TYPE). Unfit: it is no JSON, or a field does not fit (INVALID_BODY).
    """
    if call.body and _media_type(call.request) != JSON_TYPE:
        raise Invalid(f"the body must be {JSON_TYPE}", code="BODY_TYPE")
    try:
        read: Read = _decoder(kind).decode(call.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _converted(call.body, kind)
    return read


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _problem(text: str) -> dict[str, str]:
    if missing := _MISSING.search(text):
        return {missing[1]: "is needed"}
    if unknown := _UNKNOWN.match(text):
        return {unknown[1]: "there is no such field here"}
    found = _FIELD.match(text)
    return {found[2]: spelled(found[1])} if found else {"body": text}


def _converted(body: bytes, kind: type[Read]) -> Read:
    """Read once more, whole numbers with a point allowed, and say what does not fit."""
    try:
        return msgspec.convert(_decode(body), kind)
    except msgspec.ValidationError as e:
        raise Unfit("INVALID_BODY", _problem(str(e))) from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Unfit("INVALID_BODY", {"body": "is no JSON"}) from e


def _media_type(request: Request) -> str:
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            return str(value.decode("latin-1")).partition(";")[0].strip().lower()
    return ""
