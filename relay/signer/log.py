"""Structured logs of the signer on stderr, one JSON object a line, with secrets taken out. Knows no event.

Redaction is the second wall: nothing here logs a secret on purpose. A key of a secret's name and a value
that looks like one of our tokens are replaced wherever they stand.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

REDACTED = "[redacted]"
_SECRET_KEY = re.compile(
    r"secret|password|credential|private|authorization|account_key|\bsas\b|^token$|bearer|^mac$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"ipk-[A-Za-z0-9_-]{20,}"  # API keys
    r"|\b[a-z0-9-]{1,64}\.[A-Za-z0-9_-]{43}\.[a-z2-7]{52}\b"  # enrolment tokens
    r"|(?i:bearer\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=[?&]sig=)[^&\s\"]+"  # Azure SAS
    r"|(?<=://)[^/\s@]+(?=@)"  # user:password in a URL
)

Event = MutableMapping[str, Any]


def redact(_logger: object, _method: str, event: Event) -> Event:
    """Replace secrets in one event; a structlog processor."""
    for key, value in event.items():
        event[key] = REDACTED if key != "event" and _SECRET_KEY.search(key) else _clean(value)
    return event


def configure(level: str) -> None:
    """Set up logging of this process; called once, by the app."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(default=_shown),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _SECRET_VALUE.sub(REDACTED, value)
    if isinstance(value, dict):
        return {
            key: REDACTED if isinstance(key, str) and _SECRET_KEY.search(key) else _clean(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value


def _shown(value: object) -> str:
    # Bytes in a log are ids and digests; a few show which one, never a whole payload.
    return value[:16].hex() if isinstance(value, bytes) else type(value).__name__
