"""The server dies, restarts, hangs or lies in the middle of a write: every byte is right, or the error is named."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import AgentError, Cancelled
from agent.shares.errors import (
    FileChanged,
    NotFound,
    SecurityRefused,
    ShareDisconnected,
    ShareTimeout,
    ShareUnreachable,
    WrittenLost,
)
from agent.shares.smb.newfile import SmbNewFile
from agent.shares.smb.policy import SmbPolicy
from imaging.units import KiB, MiB
from tests.support.samba import BOTH, HURRIED, IMPATIENT, SIGNED, Rig, samba_rig
from tests.support.smb_proxy import TO_CLIENT, TO_SERVER, SmbProxy

pytestmark = pytest.mark.fault

GUARD = 60.0
"""Seconds after which a test that hangs fails; nothing here takes a tenth of it."""

CONTENT = random.Random(3).randbytes(40 * MiB + 4321)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A server of its own for each test: it is killed."""
    with samba_rig() as running:
        yield running


def create(
    rig: Rig, tmp_path: Path, policy: SmbPolicy, *, port: int | None = None, keep: bool = False
) -> SmbNewFile:
    """Begin `new.raw`."""
    share = rig.share(policy=policy, port=port)
    return share.create("new.raw", job="j1", journal=tmp_path / "journal", keep=keep)


def fill(file: SmbNewFile, start: int = 0, end: int = len(CONTENT), step: int = 512 * KiB) -> None:
    """Write a part of the content."""
    for offset in range(start, end, step):
        file.write(offset, CONTENT[offset : min(offset + step, end)])


def fill_durably(file: SmbNewFile) -> None:
    """Write all of it, and flush."""
    fill(file)
    file.flush()


def in_flight(policy: SmbPolicy) -> int:
    """Return the bytes that an outage can make a writer send twice."""
    return (policy.write_depth[1] + 1) * policy.write_chunk


def part_of(rig: Rig) -> Path:
    """The file that is being made."""
    (part,) = rig.folder.glob("new.raw.part-*")
    return part


@BOTH
def test_three_kills_in_the_middle_of_writes_leave_every_byte_right(
    rig: Rig, tmp_path: Path, policy: SmbPolicy
) -> None:
    kills = iter([5 * MiB, 18 * MiB, 33 * MiB])
    state = {"next": next(kills), "killed": 0}

    def kill(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_SERVER and proxy.to_server > state["next"]:
            state["next"] = next(kills, 1 << 60)
            state["killed"] += 1
            rig.server.restart()
            return []  # What was on its way is lost with the server.
        return [frame]

    with SmbProxy(rig.server.port, kill) as proxy:
        file = create(rig, tmp_path, policy, port=proxy.port)
        fill(file)
        file.commit()
        file.abort()
    assert state["killed"] == 3
    assert (rig.folder / "new.raw").read_bytes() == CONTENT
    assert 0 < file.sent_again <= 3 * in_flight(policy)
    assert [path.name for path in rig.folder.iterdir()] == ["new.raw"]


@BOTH
def test_a_cut_at_any_byte_leaves_every_byte_right(
    rig: Rig, tmp_path: Path, policy: SmbPolicy
) -> None:
    chance = random.Random(11)
    cuts = sorted(chance.randrange(2000, len(CONTENT)) for _ in range(8))

    def cut(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_SERVER and cuts and proxy.to_server > cuts[0]:
            cuts.pop(0)
            raise ConnectionResetError  # Ends both ways of this connection.
        return [frame]

    with SmbProxy(rig.server.port, cut) as proxy:
        file = create(rig, tmp_path, policy, port=proxy.port)
        threads = [
            threading.Thread(target=fill, args=(file, n * 10 * MiB, end))
            for n, end in enumerate((10 * MiB, 20 * MiB, 30 * MiB, len(CONTENT)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)
        file.commit()
    assert not cuts
    assert (rig.folder / "new.raw").read_bytes() == CONTENT


@BOTH
def test_acknowledgements_that_are_lost_cost_a_second_sending_only(
    rig: Rig, tmp_path: Path, policy: SmbPolicy
) -> None:
    state = {"lost": 0}

    def swallow(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_CLIENT and proxy.to_server > 20 * MiB and state["lost"] < 3:
            state["lost"] += 1
            if state["lost"] == 3:
                raise ConnectionResetError
            return []
        return [frame]

    with SmbProxy(rig.server.port, swallow) as proxy:
        file = create(rig, tmp_path, policy, port=proxy.port)
        fill(file)
        file.commit()
    assert (rig.folder / "new.raw").read_bytes() == CONTENT


def test_a_commit_whose_answer_is_lost_is_seen_to_have_happened(rig: Rig, tmp_path: Path) -> None:
    state = {"cut": False}

    def cut(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_CLIENT and (rig.folder / "new.raw").exists() and not state["cut"]:
            state["cut"] = True
            raise ConnectionResetError
        return [frame]

    with SmbProxy(rig.server.port, cut) as proxy:
        file = create(rig, tmp_path, IMPATIENT, port=proxy.port)
        fill(file, end=MiB)
        file.commit()
    assert state["cut"]
    assert (rig.folder / "new.raw").read_bytes() == CONTENT[:MiB]


def test_a_write_over_what_was_just_written_waits_until_that_is_durable(
    rig: Rig, tmp_path: Path
) -> None:
    asked: list[int] = []

    def note(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_SERVER and frame[:4] == b"\xfeSMB" and frame[12] in {7, 9}:
            asked.append(frame[12])
        return [frame]

    with SmbProxy(rig.server.port, note) as proxy:
        file = create(rig, tmp_path, SIGNED, port=proxy.port)
        file.write(0, b"old" * 1000)
        file.write(1000, b"new")
        file.commit()
    write, flush = 9, 7
    assert asked[:4] == [write, flush, write, flush]  # A server may change the order of two writes.
    assert (rig.folder / "new.raw").read_bytes()[1000:1003] == b"new"


# --- a server that loses what it acknowledged ----------------------------------------------------


def _zero_some(part: Path) -> None:
    with part.open("r+b") as stream:
        stream.seek(3 * MiB)
        stream.write(bytes(4096))


def _cut_short(part: Path) -> None:
    os.truncate(part, MiB)


@pytest.mark.parametrize("loss", [_zero_some, _cut_short], ids=["zeros", "shorter"])
def test_acknowledged_data_that_the_server_lost_are_noticed(
    rig: Rig, tmp_path: Path, loss: Callable[[Path], None]
) -> None:
    file = create(rig, tmp_path, IMPATIENT, keep=True)
    fill(file, end=32 * MiB)
    rig.server.kill()
    loss(part_of(rig))  # What a loss of power does to data that were not flushed.
    rig.server.start()
    for _ in range(2):  # Going on must stay impossible.
        with pytest.raises(WrittenLost) as caught:
            fill(file, 32 * MiB)
    assert caught.value.code == "share.written-lost"
    file.abort()


def test_flushed_data_are_not_read_back(rig: Rig, tmp_path: Path) -> None:
    with SmbProxy(rig.server.port) as proxy:
        file = create(rig, tmp_path, IMPATIENT, port=proxy.port)
        fill(file, end=32 * MiB)
        file.flush()
        rig.server.restart()
        before = proxy.to_client
        fill(file, 32 * MiB)
        file.commit()
        assert proxy.to_client - before < MiB
    assert (rig.folder / "new.raw").read_bytes() == CONTENT


def _replace_by_a_twin(part: Path) -> None:
    twin = part.with_suffix(".twin")
    twin.write_bytes(part.read_bytes())
    twin.chmod(0o666)
    twin.replace(part)


def test_another_file_of_the_parts_name_is_not_written(rig: Rig, tmp_path: Path) -> None:
    file = create(rig, tmp_path, IMPATIENT, keep=True)
    fill(file, end=4 * MiB)
    rig.server.kill()
    _replace_by_a_twin(part_of(rig))
    rig.server.start()
    with pytest.raises(FileChanged, match="part-j1"):
        fill(file, 4 * MiB)


def test_a_part_that_is_gone_is_named(rig: Rig, tmp_path: Path) -> None:
    file = create(rig, tmp_path, IMPATIENT)
    fill(file, end=4 * MiB)
    rig.server.kill()
    part_of(rig).unlink()
    rig.server.start()
    with pytest.raises(NotFound, match=r"new\.raw"):
        fill(file, 4 * MiB)


# --- outages and attacks --------------------------------------------------------------------------


def test_a_server_that_stays_away_ends_in_a_retryable_error_and_its_return_saves_the_file(
    rig: Rig, tmp_path: Path
) -> None:
    file = create(rig, tmp_path, HURRIED)
    fill(file, end=8 * MiB)
    rig.server.kill()
    with pytest.raises((ShareUnreachable, ShareDisconnected)) as caught:
        file.flush()
    assert caught.value.retryable
    rig.server.start()
    fill(file, 8 * MiB)
    file.commit()
    assert (rig.folder / "new.raw").read_bytes() == CONTENT


@BOTH
def test_what_was_only_gathered_when_the_server_went_is_in_the_file_at_last(
    rig: Rig, tmp_path: Path, policy: SmbPolicy
) -> None:
    hurried = replace(policy, connect_timeout=1.0, reconnect_for=0.2)
    file = create(rig, tmp_path, hurried)
    file.write(0, CONTENT[:1000])  # Less than a piece: still here.
    rig.server.kill()
    for start in (5000, 9000):  # Each ends a piece, which cannot be sent.
        with pytest.raises((ShareUnreachable, ShareDisconnected)):
            file.write(start, CONTENT[start : start + 1000])
    rig.server.start()
    file.commit()
    content = (rig.folder / "new.raw").read_bytes()
    expected = bytearray(10_000)
    for start in (0, 5000, 9000):
        expected[start : start + 1000] = CONTENT[start : start + 1000]
    assert content == expected


def test_a_file_is_given_up_at_once_while_the_server_is_away(rig: Rig, tmp_path: Path) -> None:
    patient = replace(IMPATIENT, connect_timeout=1.0, reconnect_for=600)
    file = create(rig, tmp_path, patient)
    fill(file, end=MiB)
    rig.server.kill()
    thread = threading.Thread(target=file.abort)
    thread.start()
    thread.join(GUARD)
    assert not thread.is_alive()
    rig.server.start()
    assert part_of(rig)  # `share ls` shows it.


def test_a_hung_server_ends_in_a_timeout_and_its_waking_saves_the_file(
    rig: Rig, tmp_path: Path
) -> None:
    file = create(rig, tmp_path, HURRIED)
    fill(file, end=8 * MiB)
    rig.server.freeze()
    with pytest.raises((ShareTimeout, ShareDisconnected)):
        fill_durably(file)
    rig.server.thaw()
    fill(file, 8 * MiB)
    file.commit()
    assert (rig.folder / "new.raw").read_bytes() == CONTENT


def test_an_answer_to_a_write_that_was_altered_is_refused(rig: Rig, tmp_path: Path) -> None:
    def alter(direction: str, frame: bytes) -> list[bytes]:
        changed = bytearray(frame)
        if direction == TO_CLIENT and frame[:4] == b"\xfeSMB" and frame[12] == 9:
            changed[68] ^= 1  # The count.
        return [bytes(changed)]

    with SmbProxy(rig.server.port, alter) as proxy:
        file = create(rig, tmp_path, SIGNED, port=proxy.port)
        with pytest.raises(SecurityRefused):
            fill_durably(file)


@pytest.mark.parametrize("state", ["hung", "dead"])
def test_abort_ends_a_write_that_waits_for_the_server(rig: Rig, tmp_path: Path, state: str) -> None:
    patient = replace(IMPATIENT, connect_timeout=600, answer_timeout=600, reconnect_for=600)
    share = rig.share(policy=patient)
    file = share.create("new.raw", job="j1", journal=tmp_path / "journal")
    if state == "hung":
        rig.server.freeze()
    else:
        rig.server.kill()
    outcome: list[type[AgentError]] = []

    def blocked() -> None:
        try:
            fill_durably(file)
        except AgentError as err:
            outcome.append(type(err))

    thread = threading.Thread(target=blocked)
    thread.start()
    thread.join(0.5)  # It cannot have ended: nobody answers. This only lets it get into the wait.
    share.abort()
    thread.join(GUARD)
    assert not thread.is_alive()
    assert outcome == [Cancelled]
