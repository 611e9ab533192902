import io
import json

import pytest
import structlog

from relay import log


@pytest.fixture
def lines():
    stream = io.StringIO()
    log.configure(level="info", as_json=True, stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def test_secrets_do_not_reach_the_log_by_name_or_by_shape(lines) -> None:
    structlog.get_logger().info(
        "request failed",
        authorization="Bearer abc",
        api_key="abc",
        headers="Authorization: Bearer abc123",
        url="https://x/?sv=2020&sig=abc123&a=1",
        env=b"abc123",
        appliance="site-1",
    )
    (line,) = lines()
    assert "abc" not in json.dumps(line)
    assert (line["appliance"], line["env"]) == ("site-1", "<6 bytes>")
    assert line["event"] == "request failed"


def test_level_is_held(lines) -> None:
    structlog.get_logger().debug("per request")
    assert lines() == []
