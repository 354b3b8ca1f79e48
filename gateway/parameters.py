"""Query parameters: parse at the door, refuse what nobody knows, name what does not fit."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar, get_args, get_type_hints

import msgspec
from starlette.requests import Request

from core.messages.jobs import CONTENT_FORMATS, Format
from core.messages.message import Message
from gateway.problems import Unfit
from gateway.spellings import spelled

Asked = TypeVar("Asked", bound=Message)

EPOCH_DIGITS_MAX: Final = 18
VALUE_LENGTH_MAX: Final = 8_192
NULL: Final = "null"
_EPOCH_MS: Final = re.compile(rf"-?[0-9]{{1,{EPOCH_DIGITS_MAX}}}")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_UNIX_DAY: Final = date(1970, 1, 1)
_YEAR_ZERO: Final = "0000"
_GREGORIAN_CYCLE_YEARS: Final = "0400"
_GREGORIAN_CYCLE: Final = timedelta(days=146_097)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIELD: Final = re.compile(r"(.*?) - at `\$\.?([\w]*)", re.DOTALL)


def parse_time(text: str) -> int:
    """Return epoch milliseconds of RFC 3339 or epoch milliseconds."""
    if _EPOCH_MS.fullmatch(text):
        return int(text)
    # A plus sign that nobody escaped arrives as a space.
    head, tail = text[:19], text[19:].replace(" ", "+").upper()
    if not _RFC3339.fullmatch(head + tail):
        raise ValueError("a time is RFC 3339 with an offset, or epoch milliseconds")
    if head.startswith(_YEAR_ZERO):
        # RFC 3339 has a year 0, Python has not; the calendar repeats itself every 400 years.
        return parse_time(_GREGORIAN_CYCLE_YEARS + head[4:] + tail) - _GREGORIAN_CYCLE // _MILLISECOND
    moment = datetime.fromisoformat(head + tail)
    return (moment - datetime.fromtimestamp(0, UTC)) // _MILLISECOND


def parse_day(text: str) -> int:
    """Return days since 1970-01-01 of YYYY-MM-DD."""
    try:
        if not _DAY.fullmatch(text):
            raise ValueError(text)
        if text.startswith(_YEAR_ZERO):
            return parse_day(_GREGORIAN_CYCLE_YEARS + text[4:]) - _GREGORIAN_CYCLE.days
        return (date.fromisoformat(text) - _UNIX_DAY).days
    except ValueError as e:
        raise ValueError("a day is YYYY-MM-DD") from e


def _split(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


class NoParameters(Message, frozen=True, kw_only=True):
    """What a route is asked that takes no query parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How one field of a query travels. schema: JSON Schema words that replace its type's own; name: where it differs
    from the field's; defaults: whether the type's default is what is taken when it is left out.
    """

    description: str
    parse: Callable[[str], Any] = str
    name: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    example: Any = None
    defaults: bool = True


_TIME: Final[Mapping[str, Any]] = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": f"^{_EPOCH_MS.pattern}$"},
    ],
}

WIRES: Final[Mapping[str, Wire]] = {
    # The one table of what query parameters are called, how they are read, and what the document says of them.
    "source": Wire(description="Only this feed; without it all feeds of the tenant."),
    "symbol": Wire(description="The symbol as the terminal names it.", example="EURUSD"),
    "symbols": Wire(
        description="Symbols, separated by commas.",
        parse=_split,
        schema={"items": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^,]*$"}},
        example=["EURUSD", "USDJPY"],
    ),
    "start_ms": Wire(
        name="from",
        description="The first moment, inclusive: epoch milliseconds, or RFC 3339 as in `2024-10-04T00:00:00Z`.",
        parse=parse_time,
        schema=_TIME,
    ),
    "stop_ms": Wire(
        name="to",
        description="The last moment, inclusive: epoch milliseconds, or RFC 3339 as in `2024-10-04T23:59:59Z`.",
        parse=parse_time,
        schema=_TIME,
    ),
    "clock": Wire(description="Which clock `from` and `to` are on; rows without a known offset have no UTC."),
    "cursor": Wire(description="`next_cursor` of the page before."),
    "format": Wire(
        description="How the answer is written; without it the Accept header decides, else JSON.",
        defaults=False,
    ),
    "limit": Wire(description="How many items one page may hold.", example=1_000),
    "interval": Wire(description="The length of a bar."),
    "after": Wire(description="The event behind which to go on; without it, what happens from now on."),
    "account": Wire(description="Only those of this account."),
    "state": Wire(description="Only those in this state."),
    "strategy": Wire(description="Only those of this strategy."),
    "client_order_id": Wire(description="Only the one its owner calls so."),
    "order": Wire(description="Only those of this order."),
    "server": Wire(description="Only those of this trade server."),
    "label": Wire(description="Only those with this label."),
    "service": Wire(description="Only those of this service."),
    "category": Wire(description="Only those of this category."),
    "sort": Wire(description="Only those of this sort."),
    "depth": Wire(description="How many flows away at most."),
    "toward": Wire(name="to", description="The service at the end of the way."),
    "origin": Wire(description="Only those that begin at this service."),
    "of": Wire(
        description="The account, strategy or symbol where the path says `-`: any name, one with a slash too."
    ),
    "target": Wire(description="Only those that end at this service."),
    "price": Wire(
        description="Which price makes the bar; `auto` is the bid where there is one, else the last."
    ),
    "digits": Wire(
        description="How many digits the symbol's prices have: `mt5` counts spreads in the last one. Without it the"
        " first bars tell."
    ),
    "day": Wire(
        description="Only this day of the trade server's clock, as in `2024-10-04`.",
        parse=parse_day,
        schema={"type": "string", "format": "date"},
    ),
}
_UNLISTED: Final = Wire(description="")


def wire_of(field_name: str) -> tuple[str, Wire]:
    """Return the parameter a field travels as, and how; a field of no row goes by its own name and type."""
    wire = WIRES.get(field_name, _UNLISTED)
    return wire.name or field_name, wire


def parse(request: Request, kind: type[Asked]) -> Asked:
    """Return the query parameters as `kind`.

    Raises:
        Unfit: a parameter is unknown, given twice, missing, or does not fit; the text names it.
    """
    given = _once_each(request)
    fields: dict[str, Any] = {}
    for name in kind.__struct_fields__:
        parameter, wire = wire_of(name)
        if parameter in given:
            if given[parameter].lower() == NULL and not _takes_text(kind, name):
                raise Unfit("INVALID_PARAMETER", {parameter: "leave it out instead"})
            try:
                fields[name] = wire.parse(given.pop(parameter))
            except ValueError as e:
                raise Unfit("INVALID_PARAMETER", {parameter: str(e)}) from e
    if given:
        raise Unfit("UNKNOWN_PARAMETER", dict.fromkeys(given, "there is no such parameter here"))
    if "format" in kind.__struct_fields__ and "format" not in fields:
        fields["format"] = _accepted(request).value
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as e:
        raise _unfit(str(e), kind) from e


@cache
def _takes_text(kind: type[Message], name: str) -> bool:
    """Whether any text is a value of the field. Of all others `null` would be read as none being given."""
    of = get_type_hints(kind)[name]
    return str in (of, *get_args(of))


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


def _unfit(text: str, kind: type[Message]) -> Unfit:
    if missing := re.search(r"missing required field `(\w+)`", text):
        return Unfit("MISSING_PARAMETER", {_parameter(missing[1]): "is needed"})
    if found := _FIELD.match(text):
        choices = get_type_hints(kind).get(found[2])
        if isinstance(choices, type) and issubclass(choices, StrEnum):
            return Unfit("INVALID_PARAMETER", {_parameter(found[2]): f"is one of {', '.join(choices)}"})
        return Unfit("INVALID_PARAMETER", {_parameter(found[2]): spelled(found[1])})
    return Unfit("INVALID_PARAMETER", {"query": text})


def _parameter(field_name: str) -> str:
    return wire_of(field_name)[0]
