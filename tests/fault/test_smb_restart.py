"""The file server dies, restarts or hangs in the middle of a read: the bytes are right, or the error is named."""

import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import AgentError, Cancelled
from agent.shares.errors import (
    FileChanged,
    NotFound,
    ShareDisconnected,
    ShareTimeout,
    ShareUnreachable,
)
from agent.shares.smb.policy import SmbPolicy
from imaging.device import read_bytes
from imaging.units import KiB, MiB
from tests.support.samba import BOTH, HURRIED, IMPATIENT, Rig, samba_rig
from tests.support.smb_proxy import TO_CLIENT, SmbProxy

pytestmark = pytest.mark.fault

GUARD = 60.0
"""Seconds after which a test that hangs fails; nothing here takes a tenth of it."""


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A server of its own for each test: it is killed."""
    with samba_rig() as running:
        yield running


@BOTH
def test_three_kills_in_the_middle_of_reads_leave_every_byte_right(
    rig: Rig, policy: SmbPolicy
) -> None:
    content = os.urandom(48 * MiB + 77)
    rig.write("image.raw", content)
    kills = iter([5 * MiB, 21 * MiB, 40 * MiB])
    state = {"next": next(kills), "killed": 0}

    def kill_inside_a_frame(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_CLIENT and proxy.to_client > state["next"]:
            state["next"] = next(kills, 1 << 60)
            state["killed"] += 1
            rig.server.restart()
            return []  # What was on its way is lost with the server.
        return [frame]

    with SmbProxy(rig.server.port, kill_inside_a_frame) as proxy:
        file = rig.share(policy=policy, port=proxy.port).open_read("image.raw")
        got = bytearray(len(content))
        for offset in range(0, len(content), 16 * MiB):
            file.read_into(offset, memoryview(got)[offset : offset + 16 * MiB])
    assert state["killed"] == 3
    assert got == content


@BOTH
def test_readers_in_several_threads_all_survive_a_kill(rig: Rig, policy: SmbPolicy) -> None:
    content = os.urandom(32 * MiB)
    rig.write("image.raw", content)
    file = rig.share(policy=policy).open_read("image.raw")
    got = bytearray(len(content))
    half_way = threading.Barrier(5)

    def read_quarter(start: int) -> None:
        for offset in range(start, start + 8 * MiB, MiB):
            if offset == start + 4 * MiB:
                half_way.wait(GUARD)
            file.read_into(offset, memoryview(got)[offset : offset + MiB])

    threads = [threading.Thread(target=read_quarter, args=(n * 8 * MiB,)) for n in range(4)]
    for thread in threads:
        thread.start()
    half_way.wait(GUARD)
    rig.server.restart()
    for thread in threads:
        thread.join(GUARD)
    assert got == content


@pytest.mark.soak
@pytest.mark.timeout(900)
@BOTH
def test_forty_kills_at_random_moments_leave_every_byte_right(rig: Rig, policy: SmbPolicy) -> None:
    content = os.urandom(64 * MiB)
    rig.write("image.raw", content)
    file = rig.share(policy=policy).open_read("image.raw")
    chance, stop, wrong = random.Random(40), threading.Event(), []

    def read_at_random(seed: int) -> None:
        mine, buffer = random.Random(seed), bytearray(6 * MiB)
        while not stop.is_set():
            length = mine.randrange(1, len(buffer))
            offset = mine.randrange(len(content) - length)
            view = memoryview(buffer)[:length]
            file.read_into(offset, view)
            if view != content[offset : offset + length]:
                wrong.append(offset)

    threads = [threading.Thread(target=read_at_random, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        stop.wait(chance.uniform(0, 0.5))
        rig.server.restart()
    stop.set()
    for thread in threads:
        thread.join(GUARD)
        assert not thread.is_alive()
    assert wrong == []


def test_extents_and_identity_survive_a_kill(rig: Rig) -> None:
    rig.write("image.raw", os.urandom(2 * MiB))
    file = rig.share().open_read("image.raw")
    extents, identity = list(file.extents(0, file.size)), file.identity()
    rig.server.restart()
    assert list(file.extents(0, file.size)) == extents
    rig.server.restart()
    assert file.identity() == identity


def _append(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"x")


def _touch(file: Path) -> None:
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000))


def _replace_by_a_twin(file: Path) -> None:
    twin = file.with_suffix(".twin")
    shutil.copy2(file, twin)  # Same size, same bytes, same time of last write.
    twin.chmod(0o666)
    twin.replace(file)


@pytest.mark.parametrize(
    ("change", "named"),
    [(_append, "size"), (_touch, "time of last write"), (_replace_by_a_twin, "file number")],
)
def test_a_file_that_changed_while_the_server_was_away_is_refused(
    rig: Rig, change: Callable[[Path], None], named: str
) -> None:
    path = rig.write("image.raw", os.urandom(MiB))
    file = rig.share().open_read("image.raw")
    rig.server.kill()
    change(path)
    rig.server.start()
    for _ in range(2):  # And again: the refused version must not become ours.
        with pytest.raises(FileChanged, match=named) as caught:
            read_bytes(file, 0, MiB)
    assert caught.value.code == "share.file-changed"


@pytest.mark.parametrize("change", [_append, _touch, _replace_by_a_twin])
def test_a_change_behind_the_servers_back_shows_in_the_identity(
    rig: Rig, change: Callable[[Path], None]
) -> None:
    path = rig.write("image.raw", os.urandom(MiB))
    file = rig.share().open_read("image.raw")
    before = file.identity()
    change(path)
    assert file.identity() != before
    with pytest.raises(FileChanged):
        read_bytes(file, 0, MiB)


def test_a_file_cut_short_behind_the_servers_back_is_never_padded(rig: Rig) -> None:
    path = rig.write("image.raw", os.urandom(4 * MiB))
    file = rig.share().open_read("image.raw")
    os.truncate(path, MiB + 5)
    with pytest.raises(FileChanged):
        read_bytes(file, 0, 4 * MiB)


def test_a_file_that_is_gone_after_the_restart_is_named(rig: Rig) -> None:
    path = rig.write("image.raw", os.urandom(MiB))
    file = rig.share().open_read("image.raw")
    rig.server.kill()
    path.unlink()
    rig.server.start()
    with pytest.raises(NotFound, match=r"image\.raw"):
        read_bytes(file, 0, MiB)


def test_a_server_that_stays_away_ends_in_a_retryable_error(rig: Rig) -> None:
    rig.write("image.raw", os.urandom(MiB))
    file = rig.share(policy=HURRIED).open_read("image.raw")
    rig.server.kill()
    with pytest.raises((ShareUnreachable, ShareDisconnected)) as caught:
        read_bytes(file, 0, MiB)
    assert caught.value.retryable
    rig.server.start()
    assert read_bytes(file, 0, MiB) == (rig.folder / "image.raw").read_bytes()


def test_a_hung_server_ends_in_a_timeout_and_goes_on_when_it_wakes(rig: Rig) -> None:
    rig.write("image.raw", os.urandom(MiB))
    file = rig.share(policy=HURRIED).open_read("image.raw")
    rig.server.freeze()
    with pytest.raises(ShareTimeout) as caught:
        read_bytes(file, 0, MiB)
    assert caught.value.code == "share.timeout"
    rig.server.thaw()
    assert read_bytes(file, 0, MiB) == (rig.folder / "image.raw").read_bytes()


def test_a_server_that_stops_inside_a_frame_ends_in_a_named_error(rig: Rig) -> None:
    rig.write("image.raw", os.urandom(MiB))

    def half_a_frame(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_CLIENT and len(frame) > 64 * KiB:
            proxy.stall()
        return [frame]

    with SmbProxy(rig.server.port, half_a_frame) as proxy:
        file = rig.share(policy=HURRIED, port=proxy.port).open_read("image.raw")
        with pytest.raises((ShareTimeout, ShareDisconnected)):
            read_bytes(file, 0, MiB)


@pytest.mark.parametrize(
    "call",
    [
        lambda share, file: read_bytes(file, 0, MiB),
        lambda share, file: file.identity(),
        lambda share, file: list(file.extents(0, MiB)),
        lambda share, file: share.list(""),
    ],
    ids=["read", "identity", "extents", "list"],
)
@pytest.mark.parametrize("state", ["hung", "dead"])
def test_abort_ends_a_call_that_waits_for_the_server(
    rig: Rig, state: str, call: Callable[..., object]
) -> None:
    rig.write("image.raw", os.urandom(MiB))
    patient = replace(IMPATIENT, connect_timeout=600, answer_timeout=600, reconnect_for=600)
    share = rig.share(policy=patient)
    file = share.open_read("image.raw")
    if state == "hung":
        rig.server.freeze()
    else:
        rig.server.kill()
    outcome: list[type[AgentError]] = []

    def blocked() -> None:
        try:
            call(share, file)
        except AgentError as err:
            outcome.append(type(err))

    thread = threading.Thread(target=blocked)
    thread.start()
    thread.join(0.3)  # It cannot have ended: nobody answers. This only lets it get into the wait.
    share.abort()
    thread.join(GUARD)
    assert not thread.is_alive()
    assert outcome == [Cancelled]
