"""What the agent's parts would log, said to people by a command that uses them: warnings only, on stderr."""

import logging
import sys

import structlog
from structlog.typing import EventDict

from appliance.cli import output


def speak() -> None:
    """Set structlog up for this process; without it, it prints to stdout, which belongs to answers."""
    structlog.configure(
        processors=[_tell],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _tell(_logger: object, _method: str, event: EventDict) -> str:
    return output.one_line(f"imageport: {event['event']}: {event.get('error', '')}")
