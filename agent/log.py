"""Logging of the agent: structlog, JSON lines on stderr, secrets redacted by type, by key and by pattern.

Event names are constant phrases; facts are keys. tenant, appliance, job and stage are bound once by contextvars.
"""

import logging
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from agent.secrets import HIDDEN, Secret

_SECRET_KEYS = frozenset(
    {
        "account_key",
        "authorization",
        "client_secret",
        "credential",
        "password",
        "proxy_authorization",
        "sas",
        "secret",
        "token",
    }
)
_PATTERNS = (
    re.compile(r"(?<=[?&])(sig=)[^&\s\"']+", re.IGNORECASE),  # SAS signature
    re.compile(r"(AccountKey=)[^;\s\"']+", re.IGNORECASE),
    re.compile(r"((?:Bearer|Basic|SharedKey)\s+)[A-Za-z0-9._~+/=:-]+", re.IGNORECASE),
    re.compile(r"(://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user:password@host
)
_DEPTH = 6
"""Containers inside containers that are shown; what lies deeper was not looked at, so it is not printed."""


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: replace everything that is, is called or looks like a secret."""
    return {key: _clean(value, key) for key, value in event.items()}


def configure(level: str, stream: TextIO | None = None) -> None:
    """Set structlog up for this process; imaging's stdlib logging goes through the same processors."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(default=repr)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=repr),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.INFO), force=True)
    # Microsoft's SDK reports every request and every cached token at INFO.
    logging.getLogger("azure").setLevel(max(threshold, logging.WARNING))


def clean_text(text: str) -> str:
    """Return `text` without anything that looks like a credential."""
    for pattern in _PATTERNS:
        text = pattern.sub(lambda match: match.group(1) + HIDDEN, text)
    return text


def _clean(value: object, key: str = "", depth: int = _DEPTH) -> object:
    if isinstance(value, Secret) or key.lower() in _SECRET_KEYS:
        return HIDDEN
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _clean_inside(value, depth - 1) if depth else HIDDEN
    return value


def _clean_inside(value: Mapping[object, object] | Collection[object], depth: int) -> object:
    if isinstance(value, Mapping):
        return {str(k): _clean(v, str(k), depth) for k, v in value.items()}
    return [_clean(item, "", depth) for item in value]
