"""The state folder and the keys are this user's alone, or the agent does not start; the message mends it."""

import os
from pathlib import Path

import pytest

from agent import identity, private
from agent.private import NotPrivate, require_private


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    identity.make_keys(folder / identity.FOLDER, machine_id="m1")
    return folder


def check(state: Path) -> None:
    require_private(state, state / identity.FOLDER)


def test_what_we_make_passes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        identity.make_keys(tmp_path / "state" / identity.FOLDER, machine_id="m1")
    finally:
        os.umask(before)
    check(tmp_path / "state")
    found = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    assert {path.stat().st_mode & 0o077 for path in found} == {0}


def test_a_state_folder_that_is_not_there_yet_passes(tmp_path: Path) -> None:
    check(tmp_path / "none")


def test_another_users_state_is_refused_with_the_chown(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = os.geteuid()
    monkeypatch.setattr(private.os, "geteuid", lambda: user + 1)
    with pytest.raises(NotPrivate, match=f"chown -R {user + 1}:.* {state}"):
        check(state)
    with pytest.raises(NotPrivate):  # enrolling does not add keys to it either
        identity.make_keys(state / identity.FOLDER, machine_id="m1")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602], ids=oct)
@pytest.mark.parametrize("name", ["device.key", "tag.key", "seal-*.key"])
def test_a_private_key_that_others_may_touch_is_refused_with_the_chmod(
    state: Path, name: str, mode: int
) -> None:
    path = next((state / identity.FOLDER).glob(name))
    path.chmod(mode)
    with pytest.raises(NotPrivate, match=f"mode {mode:04o}.*chmod 600 {path}"):
        check(state)


@pytest.mark.parametrize("name", ["", identity.FOLDER])
def test_a_folder_that_others_may_write_to_is_refused(state: Path, name: str) -> None:
    (state / name).chmod(0o770)
    with pytest.raises(NotPrivate, match=f"chmod go-rwx {state / name}"):
        check(state)


def test_a_folder_that_others_may_list_is_no_reason_to_stand_still(state: Path) -> None:
    """The doctor warns; keys and journal are closed by their own modes."""
    state.chmod(0o755)
    check(state)


def test_keys_that_cannot_be_listed_are_not_taken_for_private(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_folder: Path) -> None:  # root, who runs some of these tests, may list everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(NotPrivate, match=f"chmod 700 {state / identity.FOLDER}"):
        check(state)
