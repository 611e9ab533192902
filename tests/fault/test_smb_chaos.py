"""Gigabytes there and back while the server is killed, connections are cut at any byte and answers never come."""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.shares.smb.policy import SmbPolicy
from imaging.units import MiB
from tests.support.samba import BOTH, Rig, samba_rig
from tests.support.smb_proxy import SmbProxy

pytestmark = pytest.mark.fault


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A server of its own for each test: it is killed."""
    with samba_rig() as running:
        yield running


def in_flight(policy: SmbPolicy) -> int:
    """Return the bytes that an outage can make a writer send twice."""
    return (policy.write_depth[1] + 1) * policy.write_chunk


class Chaos:
    """Kills the server, cuts connections at any byte and stalls them, at random moments, as often as was said."""

    def __init__(self, rig: Rig, seed: int, faults: int) -> None:
        self.chance = random.Random(seed)
        self.rig, self.left, self.count = rig, faults, 0
        self._at = self.chance.randrange(32 * MiB)
        self._lock = threading.Lock()

    def rule(self, proxy: SmbProxy) -> Callable[[str, bytes], list[bytes]]:
        """Return what the proxy does with each frame.

        A kill comes at any byte of the stream that the proxy had passed on; the frame at hand is lost.
        """

        def act(_: str, frame: bytes) -> list[bytes]:
            with self._lock:
                moved = proxy.to_client + proxy.to_server
                if not self.left or moved < self._at:
                    return [frame]
                self.left -= 1
                self.count += 1
                self._at = moved + self.chance.randrange(1, 96 * MiB)
                kind = self.chance.choice(["kill", "cut", "swallow"])
                if kind == "kill":
                    self.rig.server.restart()
            if kind == "swallow":
                return []  # The answer never comes: the connection is given up by its time limit.
            raise ConnectionResetError

        return act


def _copy_there_and_back(
    rig: Rig, tmp_path: Path, policy: SmbPolicy, *, seed: int, size: int, faults: int
) -> None:
    quick = replace(policy, answer_timeout=2.0, keepalive=1.0, busy_for=60.0)
    block = random.Random(seed).randbytes(8 * MiB)
    chaos = Chaos(rig, seed, faults)
    proxy = SmbProxy(rig.server.port)
    proxy.rule = chaos.rule(proxy)
    with proxy:
        share = rig.share(policy=quick, port=proxy.port)
        with share.create("big.raw", job="j1", journal=tmp_path / "j", replace=True) as file:
            for offset in range(0, size, len(block)):
                head = offset.to_bytes(8, "little")
                file.write(offset, head + block[8:])
            file.commit()
        sent_again = file.sent_again
        reader = share.open_read("big.raw")
        assert reader.size == size
        buffer = memoryview(bytearray(len(block)))
        for offset in range(0, size, len(block)):
            reader.read_into(offset, buffer)
            assert buffer[:8] == offset.to_bytes(8, "little")
            assert buffer[8:] == block[8:]
        reader.close()
    with (rig.folder / "big.raw").open("rb") as real:
        for offset in range(0, size, len(block)):
            assert real.read(len(block)) == offset.to_bytes(8, "little") + block[8:]
    assert sent_again <= (chaos.count + 1) * in_flight(quick)
    sys.stdout.write(
        f"\n{chaos.count} faults in {2 * size // MiB} MiB, {sent_again / MiB:.0f} MiB sent twice\n"
    )


@BOTH
@pytest.mark.timeout(180)
def test_random_faults_both_ways_leave_every_byte_right(
    rig: Rig, tmp_path: Path, policy: SmbPolicy
) -> None:
    _copy_there_and_back(rig, tmp_path, policy, seed=1, size=256 * MiB, faults=5)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@BOTH
@pytest.mark.parametrize("seed", range(5))
def test_twenty_random_faults_during_gigabytes_both_ways(
    rig: Rig, tmp_path: Path, policy: SmbPolicy, seed: int
) -> None:
    _copy_there_and_back(rig, tmp_path, policy, seed=100 + seed, size=2048 * MiB, faults=20)
