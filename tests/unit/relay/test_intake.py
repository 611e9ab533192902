"""What the relay takes in is never more than the appliance would take: a larger one could never be delivered."""

import pytest

from protocol.codec import encode
from protocol.control import Push
from protocol.errors import Oversized
from protocol.ids import key_id
from protocol.messages import MAX_EPOCH_ORDER
from protocol.signed import ENVELOPE_OVERHEAD, Envelope
from relay.hub import Hub
from relay.intake import Intake
from relay.store.memory import MemoryStore
from tests.support import protocol_world as w


class NoLinks:
    """Nobody is connected."""

    def queued(self, command: object) -> None: ...

    def offer(self, tenant: str, appliance: str, frame: object) -> None: ...

    def renew(self, record: object) -> None: ...


async def test_an_epoch_order_that_no_appliance_takes_is_refused() -> None:
    payload = bytes(MAX_EPOCH_ORDER + ENVELOPE_OVERHEAD)
    env = encode(Envelope(v=1, k=key_id(b"k" * 32), p=payload, s=bytes(64)))
    push = Push(push=1, kind="epoch", tenant=w.TENANT, appliance=w.APPLIANCE, env=env)
    intake = Intake(MemoryStore(), Hub(), NoLinks(), lambda: 0)
    with pytest.raises(Oversized):
        await intake.push(push, actor="signer")
