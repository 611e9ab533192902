"""What a revoked key signed is replaced at the relay by the same thing under another key."""

from pathlib import Path

import pytest

from protocol.frames import EpochFrame
from protocol.messages import Epoch, Kind, Revocation
from relay.store.sqlite import open_sqlite
from tests.support import protocol_world as w
from tests.support.relay_world import running

pytestmark = pytest.mark.e2e


async def test_epoch_order_of_a_revoked_key_is_replaced_by_the_one_signed_again(
    tmp_path: Path,
) -> None:
    other = w.key_of("command 2")
    order = Epoch(
        v=1, tenant=w.TENANT, appliance=w.APPLIANCE, from_=1, to=2, have=0, head=b"h" * 32, final=()
    )
    revoked = Revocation(since=w.T0, running="stop")
    rows = (
        w.manifest_key("command-1", w.COMMAND, "command", revoked=revoked),
        w.manifest_key("command-2", other, "command"),
        *w.manifest().keys[1:],
    )
    store = open_sqlite(tmp_path / "relay.db", now=w.T0)
    async with running(tmp_path, store=store) as world, world.signer() as signer:
        await signer.introduce()
        first, again = (w.envelope(Kind.EPOCH, order, key) for key in (w.COMMAND, other))
        assert (await signer.push("epoch", first)).code == ""
        manifest = w.envelope(Kind.MANIFEST, w.manifest(serial=2, keys=rows), w.ROOT)
        assert (await signer.push("manifest", manifest, appliance="*")).code == ""
        assert (await signer.push("epoch", first)).code == "protocol.key-revoked"
        assert (await signer.push("epoch", again)).code == ""
        async with world.agent() as agent:
            assert (await agent.expect(EpochFrame)).env == again


async def test_record_of_a_revoked_key_is_replaced_by_the_one_signed_again(tmp_path: Path) -> None:
    other = w.key_of("record 2")
    revoked = Revocation(since=w.T0, running="stop")
    rows = (
        *(key for key in w.manifest().keys if key.role != "record"),
        w.manifest_key("record-1", w.RECORD, "record", revoked=revoked),
        w.manifest_key("record-2", other, "record"),
    )
    store = open_sqlite(tmp_path / "relay.db", now=w.T0)
    async with running(tmp_path, store=store) as world, world.signer() as signer:
        await signer.introduce()
        manifest = w.envelope(Kind.MANIFEST, w.manifest(serial=2, keys=rows), w.ROOT)
        assert (await signer.push("manifest", manifest, appliance="*")).code == ""
        first, again = (w.envelope(Kind.RECORD, w.record(), key) for key in (w.RECORD, other))
        assert (await signer.push("record", first)).code == "protocol.key-revoked"
        assert (await signer.push("record", again)).code == ""
        async with world.agent() as agent:
            assert agent.welcome is not None
