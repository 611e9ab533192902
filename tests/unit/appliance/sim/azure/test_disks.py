"""Managed disks go ReadyToUpload -> ActiveUpload -> Unattached and refuse everything out of that order."""

from pathlib import Path

import pytest

from appliance.sim.azure.disks import Disks, NewDisk
from appliance.sim.azure.state import DiskRecord, State, new_identity
from appliance.sim.azure.vault import Vault
from appliance.sim.call import Refusal
from tests.support.simazure import vhd_footer

SIZE = 32 << 20
WANTED = NewDisk("westeurope", "Premium_LRS", SIZE + 512, "Windows", "V2", [], {"owner": "us"})
NOW = 1000.0


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path, lambda: State(identity=new_identity("acc")))


@pytest.fixture
def disks(vault: Vault) -> Disks:
    return Disks(vault, lambda disk: f"http://host/{disk.label}/{disk.folder}/abcd")


@pytest.fixture
def disk(disks: Disks) -> DiskRecord:
    disk = disks.create("Group", "Disk", WANTED, NOW)
    disks.provisioned(disk)
    return disk


def _refused(action: object, *args: object) -> Refusal:
    assert callable(action)
    with pytest.raises(Refusal) as caught:
        action(*args)
    return caught.value


def _finish(disks: Disks, vault: Vault, disk: DiskRecord, footer: bytes) -> None:
    disks.grant(disk, "Write", 60, NOW)
    vault.disks["group/disk"].file.write(SIZE, [footer])
    disks.revoke(disk)


def test_uploaded_disk_ends_unattached(disks: Disks, vault: Vault, disk: DiskRecord) -> None:
    assert disk.state == "ReadyToUpload"
    disks.grant(disk, "Write", 60, NOW)
    assert disk.state == "ActiveUpload"
    _finish(disks, vault, disk, vhd_footer(SIZE))
    assert (disk.state, disk.policies) == ("Unattached", {})


def test_bad_footer_closes_access_and_leaves_a_disk_to_delete(
    disks: Disks, vault: Vault, disk: DiskRecord
) -> None:
    refusal = _refused(_finish, disks, vault, disk, bytes(512))
    assert (refusal.status, refusal.code) == (400, "InvalidVhd")
    assert "Disk is expected to have cookie value 'conectix'." in refusal.message
    assert (disk.state, disk.policies) == ("ActiveUpload", {})
    assert _refused(disks.grant, disk, "Write", 60, NOW).code == "OperationNotAllowed"
    disks.check_deletable(disk)
    disks.delete(disk)
    assert disks.find("Group", "Disk") is None


def test_names_do_not_differ_by_case(disks: Disks, disk: DiskRecord) -> None:
    assert disks.get("GROUP", "dISK") is disk


def test_access_can_be_renewed_during_the_upload(disks: Disks, disk: DiskRecord) -> None:
    first, second = (disks.grant(disk, "Write", 60, NOW) for _ in range(2))
    assert first != second
    assert {policy.expires for policy in disk.policies.values()} == {NOW + 60}


def test_reading_is_for_finished_disks(disks: Disks, vault: Vault, disk: DiskRecord) -> None:
    assert _refused(disks.grant, disk, "Read", 60, NOW).status == 409
    _finish(disks, vault, disk, vhd_footer(SIZE))
    disks.grant(disk, "Read", 60, NOW)
    assert disk.state == "ActiveSAS"
    assert _refused(disks.grant, disk, "Write", 60, NOW).status == 409
    disks.revoke(disk)
    assert disk.state == "Unattached"


def test_disk_in_use_is_not_deleted(disks: Disks, vault: Vault, disk: DiskRecord) -> None:
    disks.grant(disk, "Write", 60, NOW)
    assert _refused(disks.check_deletable, disk).code == "OperationNotAllowed"
    _finish(disks, vault, disk, vhd_footer(SIZE))
    disks.attach(disk, "vm1")
    assert "attached" in _refused(disks.check_deletable, disk).message
    disks.attach(disk, "")
    disks.check_deletable(disk)


def test_disk_being_created_has_no_access_yet(disks: Disks) -> None:
    fresh = disks.create("group", "fresh", WANTED, NOW)
    assert "being created" in _refused(disks.grant, fresh, "Write", 60, NOW).message


def test_same_request_again_changes_tags_only(disks: Disks, disk: DiskRecord) -> None:
    again = NewDisk("westeurope", "Premium_LRS", SIZE + 512, "Windows", "V2", [], {"owner": "them"})
    assert disks.create("group", "disk", again, NOW) is disk
    assert disk.tags == {"owner": "them"}
    other = NewDisk("westeurope", "Premium_LRS", SIZE + 1024 + 512, "Windows", "V2", [], {})
    assert _refused(disks.create, "group", "disk", other, NOW).code == "PropertyChangeNotAllowed"


def test_disks_survive_a_restart(vault: Vault, disks: Disks, disk: DiskRecord) -> None:
    disks.grant(disk, "Write", 60, NOW)
    vault.disks["group/disk"].file.write(0, [b"x" * 512])
    etag = vault.disks["group/disk"].etag
    again = Vault(vault.directory, lambda: State(identity=new_identity("acc")))
    assert again.state.disks["group/disk"] == disk
    assert again.state.identity == vault.state.identity
    assert list(again.disks["group/disk"].file.pages.within(0, SIZE)) == [(0, 512)]
    assert again.disks["group/disk"].etag == etag
