"""What a handler lets fall becomes a problem that quotes nothing of a stranger's bytes."""

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from relay import problems


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (web.HTTPExpectationFailed(text="no"), 417, "relay.bad-request"),
        (web.HTTPRequestTimeout(), 408, "relay.too-slow"),
        (ValueError("SECRET"), 500, "relay.internal"),
    ],
)
async def test_error_of_a_handler_is_a_problem_with_its_own_status(
    error: Exception, status: int, code: str
) -> None:
    async def fails(_request: web.Request) -> web.StreamResponse:
        raise error

    with capture_logs():
        answer = await problems.middleware(make_mocked_request("GET", "/"), fails)
    assert isinstance(answer, web.Response)
    assert isinstance(answer.body, bytes)
    body = json.loads(answer.body)
    assert (answer.status, body["status"], body["code"]) == (status, status, code)
    assert "SECRET" not in str(body)
