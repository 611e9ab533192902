"""The log: JSON lines, and no secret by type, by key or by look."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from agent import log
from agent.secrets import Secret


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    log.configure("info", stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize(
    "fields",
    [
        {"value": Secret("hunter2")},
        {"password": "hunter2"},
        {"nested": {"account_key": "hunter2", "list": [Secret("hunter2")]}},
        {"url": "https://a.blob/x?sv=1&sig=hunter2&se=2"},
        {"url": "http://user:hunter2@proxy:3128"},
        {"header": "Authorization: Bearer hunter2"},
        {"text": "AccountName=a;AccountKey=hunter2;"},
        {"raw": b"hunter2"},
        {"deep": [[[[[[[[{"password": "hunter2"}]]]]]]]]},
    ],
    ids=[
        "type",
        "key",
        "nested",
        "sas",
        "userinfo",
        "bearer",
        "connection-string",
        "bytes",
        "deep",
    ],
)
def test_a_secret_never_reaches_the_log(lines: io.StringIO, fields: dict[str, object]) -> None:
    structlog.get_logger().info("event", **fields)
    assert "hunter2" not in lines.getvalue()
    assert json.loads(lines.getvalue())["event"] == "event"


def test_an_exceptions_text_is_cleaned_too(lines: io.StringIO) -> None:
    error = ValueError("https://a/x?sig=hunter2")
    structlog.get_logger().error("failed", exc_info=error)
    assert "hunter2" not in lines.getvalue()


def test_other_packages_log_the_same_way(lines: io.StringIO) -> None:
    logging.getLogger("imaging.x").warning("odd %s", "https://a/x?sig=hunter2")
    line = json.loads(lines.getvalue())
    assert line["level"] == "warning"
    assert "hunter2" not in line["event"]


def test_the_cloud_sdks_chatter_is_not_ours(lines: io.StringIO) -> None:
    logging.getLogger("azure.identity").info("token came from the cache")
    logging.getLogger("azure.identity").warning("no token")
    assert [json.loads(line)["event"] for line in lines.getvalue().splitlines()] == ["no token"]


def test_below_the_level_nothing_is_written(lines: io.StringIO) -> None:
    structlog.get_logger().debug("quiet")
    assert lines.getvalue() == ""
