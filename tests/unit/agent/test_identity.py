"""The identity: made once, repeated safely, private, and bound to its machine."""

from pathlib import Path

import pytest

from agent import identity
from agent.identity import IdentityDamaged, MachineChanged, NotEnrolled
from protocol.enrol import EnrolAnswer, root_fingerprint
from protocol.errors import BadSignature, EnrolmentRejected
from protocol.messages import Kind
from protocol.signed import sign
from tests.support import protocol_world as w

PIN = root_fingerprint(w.ROOT.public)


def _answer(folder: Path, **changes: object) -> EnrolAnswer:
    keys = identity.load_keys(folder)
    record = w.record(device_key=keys.device.public, seal_key=keys.seal.public, **changes)
    return EnrolAnswer(
        v=1,
        root=w.ROOT.public,
        manifest=sign(Kind.MANIFEST, w.manifest(), w.ROOT),
        record=sign(Kind.RECORD, record, w.RECORD),
    )


def _enrolled(folder: Path) -> Path:
    identity.make_keys(folder, machine_id="m1")
    identity.store_answer(folder, _answer(folder), fingerprint=PIN)
    return folder


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    first = identity.make_keys(folder, machine_id="m1")
    again = identity.make_keys(folder, machine_id="m1")
    assert first.device.public == again.device.public
    assert first.seal.public == again.seal.public
    assert first.tag == again.tag
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_keys_are_not_shown(tmp_path: Path) -> None:
    keys = identity.make_keys(tmp_path / "identity", machine_id="")
    assert "Keys()" in repr(keys)


def test_an_enrolled_identity_is_loaded_whole(tmp_path: Path) -> None:
    me = identity.load(_enrolled(tmp_path / "identity"), machine_id="m1")
    assert (me.record.tenant, me.record.id) == (w.TENANT, w.APPLIANCE)
    assert me.ring.manifest.serial == 1


def test_an_answer_of_another_root_is_refused_and_leaves_no_record(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    identity.make_keys(folder, machine_id="m1")
    with pytest.raises(EnrolmentRejected):
        identity.store_answer(folder, _answer(folder), fingerprint="x" * 52)
    with pytest.raises(NotEnrolled):
        identity.load(folder, machine_id="m1")


def test_an_answer_for_other_keys_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    identity.make_keys(folder, machine_id="m1")
    answer = _answer(folder)
    foreign = sign(Kind.RECORD, w.record(device_key=w.OTHER_DEVICE.public), w.RECORD)
    with pytest.raises(EnrolmentRejected):
        identity.store_answer(
            folder,
            EnrolAnswer(v=1, root=answer.root, manifest=answer.manifest, record=foreign),
            fingerprint=PIN,
        )


def test_a_manifest_that_the_pinned_root_did_not_sign_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    identity.make_keys(folder, machine_id="m1")
    answer = _answer(folder)
    forged = sign(Kind.MANIFEST, w.manifest(), w.key_of("mallory"))
    with pytest.raises(BadSignature):
        identity.store_answer(
            folder,
            EnrolAnswer(v=1, root=answer.root, manifest=forged, record=answer.record),
            fingerprint=PIN,
        )


def test_another_machine_stops_at_start(tmp_path: Path) -> None:
    folder = _enrolled(tmp_path / "identity")
    with pytest.raises(MachineChanged):
        identity.load(folder, machine_id="m2")


def test_nothing_is_there_before_enrolment(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled):
        identity.load(tmp_path / "identity", machine_id="m1")


@pytest.mark.parametrize("name", ["device.key", "tag.key", "root.pub", "manifest", "record"])
def test_a_cut_file_is_named(tmp_path: Path, name: str) -> None:
    folder = _enrolled(tmp_path / "identity")
    (folder / name).write_bytes((folder / name).read_bytes()[:20])
    with pytest.raises(IdentityDamaged) as caught:
        identity.load(folder, machine_id="m1")
    assert str(folder) in str(caught.value)


def test_the_state_folder_is_nobody_elses_from_the_first_moment(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    identity.make_keys(state / "identity", machine_id="m1")
    assert state.stat().st_mode & 0o077 == 0
