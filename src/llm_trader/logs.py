"""Log lines for machines and for people, with secrets masked.

`structlog.get_logger(__name__)` and the standard library's `logging` share one handler, so the
lines of libraries look like ours.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Annotated, Any, Final, Literal, TextIO

import structlog
from msgspec import Meta, Struct
from structlog.typing import EventDict, Processor, WrappedLogger

LogLevel = Literal["trace", "debug", "info", "warn", "error"]
LogFormat = Literal["auto", "json", "console"]


class LoggingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Log lines on standard error."""

    level: Annotated[
        LogLevel, Meta(description="Least severity logged; trace adds debug lines of libraries.")
    ] = "info"
    format: Annotated[
        LogFormat, Meta(description="Form of a line; auto is console on a terminal, else JSON.")
    ] = "auto"


MASK: Final = "***"

_SECRET_ENDINGS: Final = (
    *("token", "tokens", "apikey", "secretkey", "privatekey", "secret", "credentials"),
    *("password", "passwd", "passphrase", "authorization"),
)
# Events use `timestamp` for the market's time, so the time of the log line has another name.
_TIME_KEY: Final = "ts"
_LONGEST_VALUE: Final = 4000  # longer than all messages of this program but lists of settings
_FIRST_KEYS: Final = (_TIME_KEY, "level", "logger", "event")


def configure_logging(
    level: LogLevel = "info", format: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Send all log lines of this process to `stream`, by default standard error.

    A second call replaces the configuration of the first.
    """
    stream = sys.stderr if stream is None else stream
    on_terminal = stream.isatty()
    console = format == "console" or (format == "auto" and on_terminal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(console, colors=on_terminal and "NO_COLOR" not in os.environ))

    root = logging.getLogger()
    root.handlers[:] = [handler]
    severity = logging.DEBUG if level == "trace" else logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(severity if level == "trace" else max(severity, logging.INFO))
    logging.getLogger("llm_trader").setLevel(severity)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the values of keys that name secrets, at any depth."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: str, value: Any) -> Any:
    letters = "".join(c for c in key.lower() if c.isalnum())
    if letters.endswith(_SECRET_ENDINGS):
        # A number is a count, such as prompt_tokens=512.
        return value if value is None or isinstance(value, Real) else MASK
    if isinstance(value, Mapping):
        return {inner: _masked(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", item) for item in value]
    return value


def _formatter(console: bool, *, colors: bool) -> structlog.stdlib.ProcessorFormatter:
    terminal = structlog.dev.ConsoleRenderer(
        colors=colors,
        timestamp_key=_TIME_KEY,
        # The default prints local variables, which may hold secrets.
        exception_formatter=structlog.dev.plain_traceback,
    )
    json_lines: tuple[Processor, ...] = (
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_to_json),
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key=_TIME_KEY),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            mask_secrets,
            _without_endless_text,
            *((_without_control_characters, terminal) if console else json_lines),
        ],
    )


def _without_endless_text(_: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Names that come from outside may have any length; a traceback is our own."""
    return {
        key: value if key in ("stack", "exception", "exc_info") else _shortened(value)
        for key, value in event.items()
    }


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_VALUE:
        return f"{value[:_LONGEST_VALUE]}… ({len(value)} characters)"
    if isinstance(value, Mapping):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(item) for item in value]
    return value


def _without_control_characters(_: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape text from outside: it must not forge a second line or move the cursor."""
    for key, value in event.items():
        if isinstance(value, str) and key != "stack":
            event[key] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    return event


def _to_json(event: EventDict, default: Any) -> str:
    ordered = {**{key: event[key] for key in _FIRST_KEYS if key in event}, **event}
    return json.dumps(_jsonable(ordered), default=default, allow_nan=False)


def _jsonable(value: Any) -> Any:
    """Make every line valid JSON: NaN becomes null, NumPy numbers plain numbers, keys text."""
    if isinstance(value, Integral):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value
