"""The OpenAPI document against the relay: schemathesis asks for what it promises and for what it does not.

Nothing may answer with a server error, and every answer must be one that the document names, in its shape. A signer
double stands behind the passed-through paths; event streams are left to their own tests because they do not end.
"""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from protocol.control import Call, Reply
from relay.api import openapi
from relay.config import Limits
from tests.support.relay_world import commands, running

pytestmark = pytest.mark.e2e

SIGNED = b'{"id":"%s","digest":"%s","appliance":"site-1","epoch":1,"seq":1}' % (
    b"0" * 32,
    b"0" * 64,
)
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


class Served:
    """A relay with a signer double on a loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.run(),))

    async def run(self) -> None:
        limits = Limits(requests_per_s=1e6, requests_burst=10**6, enrolments_per_min=10**6)
        async with running(self.folder, limits=limits) as world, world.signer() as signer:
            await signer.introduce()
            for env in commands(3):
                await signer.push("command", env)
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self.answer(signer))
                self.url = world.url
                self.ready.set()
                await self.stop.wait()
                answering.cancel()

    async def answer(self, signer) -> None:
        headers = {"content-type": "application/json"}
        while True:
            call = await signer.expect(Call)
            if call.path.startswith("/v1/enrolments"):
                msgpack = {"content-type": "application/msgpack"}
                await signer.send(Reply(call=call.call, status=200, headers=msgpack, body=b"\x80"))
            else:
                await signer.send(Reply(call=call.call, status=202, headers=headers, body=SIGNED))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("fuzz"))
    made.thread.start()
    assert made.ready.wait(30)
    yield made
    made.loop.call_soon_threadsafe(made.stop.set)
    made.thread.join(30)
    made.loop.close()


@schemathesis.serializer("application/msgpack")
def as_msgpack(_context: object, value: object) -> bytes:
    """Encode what was generated; what msgpack cannot carry goes as its text."""
    try:
        return msgspec.msgpack.encode(value)
    except (TypeError, OverflowError):
        return repr(value).encode()


def document() -> dict[str, object]:
    """Return the document without the paths that stream."""
    found = openapi.document()
    found["paths"] = {path: item for path, item in found["paths"].items() if "events" not in path}
    return found


schema = schemathesis.openapi.from_dict(document())


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_relay_keeps_the_promises_of_its_document(case: schemathesis.Case, served: Served) -> None:
    case.call_and_validate(
        base_url=served.url, headers={"Authorization": "Bearer admin"}, checks=CHECKS
    )


def test_committed_document_is_the_one_that_is_served() -> None:
    assert openapi.COPY.read_bytes() == openapi.text(), "run `python -m relay.api.openapi`"
