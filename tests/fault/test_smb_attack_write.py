"""A man in the middle of a connection that writes: no answer of his is believed, be it to data or to metadata."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.shares.errors import SecurityRefused
from agent.shares.smb.policy import SmbPolicy
from imaging.units import KiB, MiB
from tests.support.samba import IMPATIENT, SIGNED, Rig, samba_rig
from tests.support.smb_proxy import TO_CLIENT, SmbProxy

pytestmark = pytest.mark.fault

COMMANDS = {
    "create": 5, "close": 6, "flush": 7, "read": 8, "write": 9, "ioctl": 11, "list": 14,
    "query": 16, "set": 17,
}  # fmt: skip
SIGNED_FLAG = 0x08


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One server for the whole file."""
    with samba_rig() as running:
        running.write("image.raw", os.urandom(64 * KiB))
        yield running


def use(rig: Rig, policy: SmbPolicy, port: int, journal: Path) -> None:
    """Ask everything that a share asks."""
    share = rig.share(policy=policy, port=port)
    share.entries("")
    reader = share.open_read("image.raw")
    list(reader.extents(0, reader.size))
    reader.read_into(0, memoryview(bytearray(64 * KiB)))
    reader.close()
    with share.create("new.raw", job="j", journal=journal, replace=True) as file:
        file.truncate(MiB)
        file.write(0, b"x" * 64 * KiB)
        file.commit()


@pytest.mark.parametrize("flag", [0, SIGNED_FLAG], ids=["unsigned", "forged"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_altered_answer_to_anything_is_refused(
    rig: Rig, tmp_path: Path, command: str, flag: int
) -> None:
    seen = []

    def alter(direction: str, frame: bytes) -> list[bytes]:
        changed = bytearray(frame)
        is_answer = direction == TO_CLIENT and frame[:4] == b"\xfeSMB"
        if is_answer and frame[12] == COMMANDS[command] and frame[16] & SIGNED_FLAG:
            seen.append(command)
            changed[16] = changed[16] & ~SIGNED_FLAG | flag
            changed[-1] ^= 1
        return [bytes(changed)]

    with SmbProxy(rig.server.port, alter) as proxy, pytest.raises(SecurityRefused):
        use(rig, SIGNED, proxy.port, tmp_path / "journal")
    assert seen


@pytest.mark.parametrize("number", range(4, 22, 2))
def test_a_plain_answer_on_an_encrypted_session_is_refused_whatever_it_answers(
    rig: Rig, tmp_path: Path, number: int
) -> None:
    count = iter(range(1000))

    def plain(direction: str, frame: bytes) -> list[bytes]:
        if direction != TO_CLIENT or next(count) != number:
            return [frame]
        head = bytearray(64)
        head[0:4], head[4:6] = b"\xfeSMB", (64).to_bytes(2, "little")
        head[16] = 1
        answers = []
        for command in (
            COMMANDS.values()
        ):  # One of them is the one that was asked: a write of a MiB takes 16 numbers.
            for message_id in range(number, number + 100):
                head[12], head[24:32] = command, message_id.to_bytes(8, "little")
                answers.append(bytes(head) + bytes(64))
        return answers

    with SmbProxy(rig.server.port, plain) as proxy, pytest.raises(SecurityRefused):
        use(rig, IMPATIENT, proxy.port, tmp_path / "journal")


def test_the_proxy_itself_changes_nothing(rig: Rig, tmp_path: Path) -> None:
    for policy in (IMPATIENT, SIGNED):
        with SmbProxy(rig.server.port) as proxy:
            use(rig, policy, proxy.port, tmp_path / "journal")
        assert (rig.folder / "new.raw").stat().st_size == MiB
