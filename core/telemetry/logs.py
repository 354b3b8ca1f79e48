"""Logs: one JSON object a line on standard output, with the trace it belongs to and without secrets."""

import logging
import re
import sys
from collections.abc import Callable, MutableMapping
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
    r"secret|password|passwd|token|authorization|api_?key|cookie|credential", re.I
)
_SECRET_VALUES: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*")
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
        if _SECRET_NAMES.search(name):
            event[name] = _HIDDEN
        elif isinstance(value, str):
            event[name] = _SECRET_VALUES.sub(_HIDDEN, value[:VALUE_LENGTH_MAX])
    return event


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
