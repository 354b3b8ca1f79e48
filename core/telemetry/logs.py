"""Logs: one JSON object a line on standard output, with the trace it belongs to and without secrets."""

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final

import msgspec
import structlog

from core.errors.exceptions import Misconfigured
from core.telemetry.tracing import CURRENT

VALUE_LENGTH_MAX: Final = 4_000
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_SECRET_NAMES: Final = re.compile(
    r"secret|password|passwd|token|authorization|(?:api|idempotency)[-_]?key|cookie|credential", re.I
)
_SECRET_VALUES: Final = re.compile(
    r"\b(?:bearer|basic) +[\w.~+/=-]{8,}"
    r"|eyJ[\w-]{8,}\.[\w-]*(?:\.[\w-]*)*"  # a JSON Web Token, whole or cut off
    r"|\btg[a-z]{1,2}_[\w-]{16,}"  # our keys and refresh tokens
    r"|\b(?:client_secret|refresh_token|access_token|assertion|password|token)=[^&\s\"']+"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",
    re.I,
)
_SECRET_HINTS: Final = (" ", "=", "eyJ", "tg", "TG", "://")
"""No credential is without one of these; looking for them costs a tenth of looking for credentials."""
NESTING_MAX: Final = 4
NAMES_REMEMBERED_MAX: Final = 1_024
_HIDDEN: Final = "***"

Event = MutableMapping[str, Any]


def configure_logging(process: str, level: str) -> None:
    """Send every log line of this process, the libraries' too, to standard output as JSON.

    Raises:
        Misconfigured: no such level.
    """
    if level not in _LEVELS:
        raise Misconfigured(f"log_level must be one of {', '.join(_LEVELS)}", code="BAD_SETTING")
    shared = _processors(process)
    encode = msgspec.json.Encoder(enc_hook=repr).encode
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        processors=[*shared, lambda _logger, _name, event: encode(event)],
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda _logger, _name, event: encode(event).decode(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.INFO), force=True)


def redact(_logger: Any, _name: str, event: Event) -> Event:
    """Hide values with a secret's name, and anything that looks like a credential inside texts."""
    for name, value in event.items():
        if not name.startswith("_"):  # the log library's own
            event[name] = _HIDDEN if _names_secret(name) else _shown(value, 0)
    return event


@lru_cache(NAMES_REMEMBERED_MAX)
def _names_secret(name: str) -> bool:
    return _SECRET_NAMES.search(name) is not None


def _shown(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _without_credentials(value[:VALUE_LENGTH_MAX])
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _HIDDEN if depth >= NESTING_MAX else _each_shown(value, depth + 1)
    # What has no form of its own is written as Python shows it; bytes would be Base64, in which nobody sees a secret.
    return _without_credentials(repr(value)[:VALUE_LENGTH_MAX])


def _each_shown(values: Any, depth: int) -> Any:
    if isinstance(values, Mapping):
        return {
            str(name): _HIDDEN if _names_secret(str(name)) else _shown(value, depth)
            for name, value in values.items()
        }
    return [_shown(value, depth) for value in values]


def _without_credentials(text: str) -> str:
    if any(hint in text for hint in _SECRET_HINTS):
        return _SECRET_VALUES.sub(_HIDDEN, text)
    return text


def _processors(process: str) -> list[Callable[..., Any]]:
    def name_process(_logger: Any, _name: str, event: Event) -> Event:
        event["process"] = process
        if (trace := CURRENT.get()) is not None:
            event["trace_id"] = trace.trace_id
            event["span_id"] = trace.span_id
        return event

    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.add_log_level,
        name_process,
        structlog.processors.format_exc_info,
        redact,
    ]
