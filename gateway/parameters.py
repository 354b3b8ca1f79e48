"""Query parameters: parse at the door, refuse what nobody knows, name what does not fit."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request

from core.messages.jobs import CONTENT_FORMATS, Format, Message
from gateway.problems import Unfit

Asked = TypeVar("Asked", bound=Message)

EPOCH_DIGITS_MAX: Final = 18
VALUE_LENGTH_MAX: Final = 8_192
_EPOCH_MS: Final = re.compile(rf"-?[0-9]{{1,{EPOCH_DIGITS_MAX}}}")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_UNIX_DAY: Final = date(1970, 1, 1)
_FIELD: Final = re.compile(r"(.*?) - at `\$\.?([\w]*)", re.DOTALL)


def parse_time(text: str) -> int:
    """Return epoch milliseconds of RFC 3339 or epoch milliseconds."""
    if _EPOCH_MS.fullmatch(text):
        return int(text)
    # A plus sign that nobody escaped arrives as a space.
    head, tail = text[:19], text[19:].replace(" ", "+").upper()
    if not _RFC3339.fullmatch(head + tail):
        raise ValueError("a time is RFC 3339 with an offset, or epoch milliseconds")
    moment = datetime.fromisoformat(head + tail)
    return (moment - datetime.fromtimestamp(0, UTC)) // _MILLISECOND


_MILLISECOND: Final = datetime(1970, 1, 1, 0, 0, 0, 1_000) - datetime(1970, 1, 1)  # noqa: DTZ001 - a span


def parse_day(text: str) -> int:
    """Return days since 1970-01-01 of YYYY-MM-DD."""
    try:
        return (date.fromisoformat(text) - _UNIX_DAY).days
    except ValueError as e:
        raise ValueError("a day is YYYY-MM-DD") from e


def _split(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


_WIRE: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    # field of the message -> parameter, parser; all other fields go by their own name and type
    "start_ms": ("from", parse_time),
    "stop_ms": ("to", parse_time),
    "day": ("day", parse_day),
    "symbols": ("symbols", _split),
}


def parse(request: Request, kind: type[Asked]) -> Asked:
    """Return the query parameters as `kind`.

    Raises:
        Unfit: a parameter is unknown, given twice, missing, or does not fit; the text names it.
    """
    given = _once_each(request)
    fields: dict[str, Any] = {}
    for name in kind.__struct_fields__:
        parameter, parser = _WIRE.get(name, (name, str))
        if parameter in given:
            try:
                fields[name] = parser(given.pop(parameter))
            except ValueError as e:
                raise Unfit("INVALID_PARAMETER", {parameter: str(e)}) from e
    if given:
        raise Unfit("UNKNOWN_PARAMETER", dict.fromkeys(given, "there is no such parameter here"))
    if "format" in kind.__struct_fields__ and "format" not in fields:
        fields["format"] = _accepted(request)
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as e:
        raise _unfit(str(e)) from e


def _once_each(request: Request) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise Unfit("INVALID_PARAMETER", {name: "given more than once"})
        if len(value) > VALUE_LENGTH_MAX:
            raise Unfit("INVALID_PARAMETER", {name: f"longer than {VALUE_LENGTH_MAX} characters"})
        given[name] = value
    return given


def _accepted(request: Request) -> Format:
    """Return the first format the caller accepts that we have; JSON when none is named."""
    for entry in request.headers.get("accept", "").split(","):
        wanted = CONTENT_FORMATS.get(entry.partition(";")[0].strip().lower())
        if wanted is not None:
            return wanted
    return Format.JSON


def _unfit(text: str) -> Unfit:
    if missing := re.search(r"missing required field `(\w+)`", text):
        return Unfit("MISSING_PARAMETER", {_parameter(missing[1]): "is needed"})
    if found := _FIELD.match(text):
        return Unfit("INVALID_PARAMETER", {_parameter(found[2]): found[1]})
    return Unfit("INVALID_PARAMETER", {"query": text})


def _parameter(field: str) -> str:
    return _WIRE.get(field, (field, str))[0]
