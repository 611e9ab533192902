"""The log of relay and signer: no secret by key or by look, however deep it lies."""

import io
import json

import pytest
import structlog

from relay import log
from relay.log import REDACTED, redact

TOKEN = "t-0123456789abcdef." + "A" * 43 + "." + "a2" * 26


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


@pytest.mark.parametrize(
    ("fields", "secret"),
    [
        ({"password": "hunter2"}, "hunter2"),
        ({"token": TOKEN}, TOKEN),
        ({"why": f"refused {TOKEN} again"}, "A" * 43),
        ({"detail": "key ipk-" + "Zz09_-" * 7}, "Zz09"),
        ({"error": "got Authorization: Bearer abcdefgh12345678"}, "abcdefgh"),
        ({"url": "https://a.example/c?sv=1&sig=SECRETSIG%3D&se=2"}, "SECRETSIG"),
        ({"url": "https://user:pa55@proxy.example/"}, "pa55"),
        ({"nested": {"sas": "?x", "list": [{"client_secret": "cs"}]}}, "cs'"),
    ],
)
def test_secrets_are_taken_out_wherever_they_stand(fields: dict[str, object], secret: str) -> None:
    shown = redact(None, "info", {"event": "something happened", **fields})
    assert secret not in repr(shown)
    assert REDACTED in repr(shown)


def test_facts_stay_as_they_are() -> None:
    facts = {"event": "token made", "appliance": "site-1", "seq": 7, "digest": "ab" * 32}
    assert redact(None, "info", dict(facts)) == facts


def test_an_exceptions_text_is_cleaned_too(lines) -> None:
    error = ValueError(f"{TOKEN} at https://user:pa55@relay.example/")
    structlog.get_logger().error("failed", exc_info=error)
    (line,) = lines()
    assert "ValueError" in line["exception"]
    assert "pa55" not in line["exception"]
    assert "A" * 43 not in line["exception"]
