"""Structured logs of the relay, with secrets redacted by key and by shape. Sets up structlog; decides nothing else."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

_SECRET_KEYS = re.compile(
    r"authorization|token|secret|password|api_key|credential|signature|cookie", re.IGNORECASE
)
_SECRET_TEXT = re.compile(r"(?i)\b(bearer|basic)\s+\S+|\b(sig|sv|se)=[^&\s]+")
REDACTED = "[redacted]"


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace values that may be secrets: by the name of their key, or by how they look. Bytes are never printed."""
    for key, value in event.items():
        if _SECRET_KEYS.search(key):
            event[key] = REDACTED
        elif isinstance(value, bytes):
            event[key] = f"<{len(value)} bytes>"
        elif isinstance(value, str):
            event[key] = _SECRET_TEXT.sub(REDACTED, value)
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
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
    )
