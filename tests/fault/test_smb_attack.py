"""A man in the middle of an SMB connection: whatever he does, no byte of his is ever believed."""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from agent.errors import AgentError
from agent.shares.errors import SecurityRefused, ShareDisconnected
from agent.shares.smb.policy import SmbPolicy
from imaging.device import read_bytes
from imaging.units import KiB
from tests.support.samba import IMPATIENT, SIGNED, Rig, samba_rig
from tests.support.smb_proxy import (
    HUGE_FRAME,
    TO_CLIENT,
    TO_SERVER,
    SmbProxy,
    is_read_answer,
)

pytestmark = pytest.mark.fault

SIZE = 32 * KiB
"""One READ, one credit: so message ids count the frames."""

COMMAND, STATUS, FLAGS, SIGNATURE = slice(12, 14), slice(8, 12), slice(16, 20), slice(48, 64)
SIGNED_FLAG = 0x08
NEGOTIATE, SESSION_SETUP, READ = 0, 1, 8


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One server for the whole file; the proxies stand in front of it."""
    with samba_rig() as running:
        running.write("image.raw", os.urandom(SIZE))
        yield running


def _reads_through(rig: Rig, policy: SmbPolicy, rule: Callable[[str, bytes], list[bytes]]) -> bytes:
    with SmbProxy(rig.server.port, rule) as proxy:
        file = rig.share(policy=policy, port=proxy.port).open_read("image.raw")
        return read_bytes(file, 0, SIZE)


# --- signed sessions ------------------------------------------------------------------------------


def _strip(frame: bytearray) -> None:
    """The attack that smbprotocol 1.17 falls for: no flag, no check."""
    frame[16] &= ~SIGNED_FLAG
    frame[SIGNATURE] = bytes(16)
    frame[-1] ^= 1


def _alter(frame: bytearray) -> None:
    frame[-1] ^= 1


def _pose_as_logon(frame: bytearray) -> None:
    """Answers to SESSION_SETUP are not checked by the library: call this one so."""
    frame[COMMAND] = SESSION_SETUP.to_bytes(2, "little")
    _strip(frame)


def _pose_as_interim(frame: bytearray) -> None:
    """PENDING answers may be unsigned; this one carries data."""
    frame[STATUS] = (0x103).to_bytes(4, "little")
    _strip(frame)


def _other_message(frame: bytearray) -> None:
    frame[24] ^= 0x40


def _other_session(frame: bytearray) -> None:
    frame[40] ^= 1


def _chain(frame: bytearray) -> None:
    frame[20:24] = (64).to_bytes(4, "little")


@pytest.mark.parametrize(
    "attack",
    [_strip, _alter, _pose_as_logon, _other_message, _other_session, _chain],
    ids=lambda f: f.__name__.strip("_"),
)
def test_an_altered_answer_on_a_signed_session_is_refused(
    rig: Rig, attack: Callable[[bytearray], None]
) -> None:
    def rule(direction: str, frame: bytes) -> list[bytes]:
        changed = bytearray(frame)
        if is_read_answer(direction, frame):
            attack(changed)
        return [bytes(changed)]

    with pytest.raises(SecurityRefused) as caught:
        _reads_through(rig, SIGNED, rule)
    assert caught.value.code == "share.security"


def test_data_in_an_unsigned_interim_answer_is_not_taken(rig: Rig) -> None:
    def rule(direction: str, frame: bytes) -> list[bytes]:
        if not is_read_answer(direction, frame):
            return [frame]
        changed = bytearray(frame)
        _pose_as_interim(changed)
        return [bytes(changed), frame]

    assert _reads_through(rig, SIGNED, rule) == (rig.folder / "image.raw").read_bytes()


# --- encrypted sessions ---------------------------------------------------------------------------


def _forged_read_answer(message_id: int) -> bytes:
    """A plain, unsigned READ answer full of the attacker's bytes ([MS-SMB2] 2.2.20)."""
    head = bytearray(64)
    head[0:4], head[4:6] = b"\xfeSMB", (64).to_bytes(2, "little")
    head[COMMAND] = READ.to_bytes(2, "little")
    head[14:16] = (1).to_bytes(2, "little")
    head[FLAGS] = (1).to_bytes(4, "little")
    head[24:32] = message_id.to_bytes(8, "little")
    body = (17).to_bytes(2, "little") + bytes([80, 0]) + SIZE.to_bytes(4, "little") + bytes(8)
    return bytes(head) + body + b"\xee" * SIZE


def test_a_plain_answer_on_an_encrypted_session_is_refused(rig: Rig) -> None:
    sent = []

    def rule(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_SERVER:
            sent.append(frame)
        elif len(frame) > SIZE:  # The answer to the READ, which was the last thing sent.
            return [_forged_read_answer(len(sent) - 1)]
        return [frame]

    with pytest.raises(SecurityRefused, match="plain answer on an encrypted session"):
        _reads_through(rig, IMPATIENT, rule)


@pytest.mark.parametrize(
    "byte",
    [4, 20, 36, 42, 44, 52, -1],
    ids=["tag", "nonce", "size", "flags", "session", "first", "last"],
)
def test_an_altered_frame_on_an_encrypted_session_is_refused(rig: Rig, byte: int) -> None:
    def rule(direction: str, frame: bytes) -> list[bytes]:
        changed = bytearray(frame)
        if direction == TO_CLIENT and len(frame) > SIZE:
            changed[byte] ^= 1
        return [bytes(changed)]

    with pytest.raises(SecurityRefused):
        _reads_through(rig, IMPATIENT, rule)


# --- before the logon -----------------------------------------------------------------------------


def _answer_to(command: int, direction: str, frame: bytes) -> bool:
    return direction == TO_CLIENT and frame[COMMAND] == command.to_bytes(2, "little")


@pytest.mark.parametrize("policy", [IMPATIENT, SIGNED], ids=["encrypted", "signed"])
@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (64 + 2, 0),  # Security mode: "signing is not required".
        (64 + 24, 0),  # Capabilities.
        (64 + 40, 7),  # The server's clock: harmless by itself, but part of what is proven.
        (64 + 4, 0x02),  # Dialect 3.0.2 instead of 3.1.1.
    ],
    ids=["signing", "capabilities", "clock", "dialect"],
)
def test_a_changed_negotiation_is_refused(
    rig: Rig, policy: SmbPolicy, offset: int, value: int
) -> None:
    def rule(direction: str, frame: bytes) -> list[bytes]:
        changed = bytearray(frame)
        if _answer_to(NEGOTIATE, direction, frame):
            changed[offset] = value if changed[offset] != value else value ^ 1
        return [bytes(changed)]

    with pytest.raises(SecurityRefused):
        _reads_through(rig, policy, rule)


@pytest.mark.parametrize("policy", [IMPATIENT, SIGNED], ids=["encrypted", "signed"])
def test_a_changed_end_of_the_logon_is_refused(rig: Rig, policy: SmbPolicy) -> None:
    def rule(direction: str, frame: bytes) -> list[bytes]:
        changed = bytearray(frame)
        if _answer_to(SESSION_SETUP, direction, frame) and frame[STATUS] == bytes(4):
            changed[64 + 2] ^= 4  # Session flags: "encrypt data".
        return [bytes(changed)]

    with pytest.raises(SecurityRefused):
        _reads_through(rig, policy, rule)


@pytest.mark.parametrize("policy", [IMPATIENT, SIGNED], ids=["encrypted", "signed"])
def test_a_frame_of_two_gigabytes_is_refused_before_it_is_held(rig: Rig, policy: SmbPolicy) -> None:
    def rule(direction: str, frame: bytes) -> list[bytes]:
        return [HUGE_FRAME] if direction == TO_CLIENT else [frame]

    with pytest.raises(SecurityRefused, match="frame of"):
        _reads_through(rig, policy, rule)


@pytest.mark.parametrize("policy", [IMPATIENT, SIGNED], ids=["encrypted", "signed"])
@pytest.mark.parametrize("junk", [b"", b"\xfeSMB", b"\xfdSMB", b"HTTP/1.1 200 OK\r\n", bytes(200)])
def test_junk_instead_of_an_answer_is_a_named_error(
    rig: Rig, policy: SmbPolicy, junk: bytes
) -> None:
    def rule(direction: str, frame: bytes) -> list[bytes]:
        return [junk] if direction == TO_CLIENT else [frame]

    with pytest.raises(AgentError) as caught:
        _reads_through(rig, policy, rule)
    assert isinstance(caught.value, (SecurityRefused, ShareDisconnected))


def test_the_proxy_itself_changes_nothing(rig: Rig) -> None:
    for policy in (IMPATIENT, SIGNED):
        got = _reads_through(rig, policy, lambda _, frame: [frame])
        assert got == (rig.folder / "image.raw").read_bytes()


@pytest.mark.parametrize("policy", [IMPATIENT, SIGNED], ids=["encrypted", "signed"])
@pytest.mark.parametrize("seed", range(40))
def test_random_damage_before_the_logon_is_a_named_error(
    rig: Rig, policy: SmbPolicy, seed: int
) -> None:
    chance = random.Random(seed)
    victim = chance.randrange(4)  # NEGOTIATE, both SESSION_SETUPs, and the first checked answer.
    answers = iter(range(1000))

    def rule(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_SERVER or next(answers) != victim:
            return [frame]
        changed = bytearray(frame)
        for _ in range(chance.choice([1, 1, 4])):
            # Not the header: its damage is found at once, and tests above do that.
            changed[chance.randrange(min(64, len(frame) - 1), len(frame))] = chance.randrange(256)
        return [bytes(changed[: chance.choice([None, None, len(frame) // 2, 70])])]

    quick = replace(policy, connect_timeout=1.0, reconnect_for=0.0)
    content = (rig.folder / "image.raw").read_bytes()
    with contextlib.suppress(AgentError):  # Anything else that comes out is a defect.
        assert _reads_through(rig, quick, rule) == content  # The byte had that value already.
