"""What following a job ends with when the relay lies: 0 only for a proven success, whatever the stream said."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

import pytest

from appliance.cli.clientconfig import Client
from appliance.cli.evidence import BadEvidence
from appliance.cli.exits import Exit
from appliance.cli.job import follow
from protocol.messages import Kind
from relay.client_watch import JobEvent
from tests.support import protocol_world as w

if TYPE_CHECKING:
    from relay.client import RelayClient

JOB = "ab" * 16
CLIENT = Client("http://relay.example", w.TENANT, "", None, None, None, None, root=w.ROOT.public)


class LyingRelay:
    """Streams a success, shows whatever it likes, and hands out the true keys."""

    def __init__(self, state: str) -> None:
        self.state = state

    async def watch(self, _job: str, *, just_ordered: bool) -> AsyncIterator[JobEvent]:
        yield JobEvent(1, "state", {"state": "succeeded", "just": just_ordered})

    async def job(self, job: str) -> dict[str, Any]:
        return {"id": job, "state": self.state, "op": "upload", "appliance": w.APPLIANCE}

    async def keys(self) -> dict[str, Any]:
        return {"manifest": _text(w.envelope(Kind.MANIFEST, w.manifest(), w.ROOT))}

    async def record(self, _appliance: str) -> dict[str, Any]:
        return {"record": _text(w.envelope(Kind.RECORD, w.record(), w.RECORD))}


def _text(envelope: bytes) -> str:
    return base64.b64encode(envelope).decode()


def follows(state: str) -> int:
    relay = cast("RelayClient", LyingRelay(state))
    return asyncio.run(follow(CLIENT, relay, JOB, as_json=True))


@pytest.mark.parametrize("state", ["queued", "running", "cancelling"])
def test_a_success_in_the_stream_alone_does_not_end_with_0(state: str) -> None:
    assert follows(state) == Exit.NO


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "refused"])
def test_an_end_that_nobody_signed_is_not_believed(state: str) -> None:
    with pytest.raises(BadEvidence, match="without the appliance's signed result"):
        follows(state)
