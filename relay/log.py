"""Structured logs of relay and signer, with secrets redacted by key and by shape. Sets up structlog; knows no event.

Redaction is the second wall: nothing here logs a secret on purpose. A key of a secret's name, and a value that looks
like one of our tokens, are replaced wherever they stand, in nested values and in the text of exceptions too.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

REDACTED = "[redacted]"
_SECRET_KEY = re.compile(
    r"authorization|token|secret|password|private|api_key|account_key|credential|signature|cookie"
    r"|bearer|\bsas\b|^mac$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"ipk-[A-Za-z0-9_-]{20,}"  # API keys
    r"|\b[a-z0-9-]{1,64}\.[A-Za-z0-9_-]{43}\.[a-z2-7]{52}\b"  # enrolment tokens
    r"|(?i:\b(?:bearer|basic)\s+)\S+"
    r"|(?i:(?<=[?&\s])sig=)[^&\s\"]+"  # SAS
    r"|(?<=://)[^/\s@]+(?=@)"  # user:password in a URL
)

Event = MutableMapping[str, Any]


def redact(_logger: object, _method: str, event: Event) -> Event:
    """Replace what may be a secret in one event; a structlog processor. Bytes are never printed."""
    for key, value in event.items():
        event[key] = REDACTED if key != "event" and _SECRET_KEY.search(key) else _clean(value)
    return event


def configure(*, level: str, as_json: bool, stream: TextIO | None = None) -> None:
    """Set up the process's logging: one line an event on stderr."""
    renderer: Any = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
    )


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _SECRET_TEXT.sub(REDACTED, value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {
            key: REDACTED if isinstance(key, str) and _SECRET_KEY.search(key) else _clean(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value
