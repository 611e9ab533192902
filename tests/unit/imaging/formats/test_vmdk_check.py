"""What a check finds in VMDK and OVA images that open: each fault alone, and nothing in sound ones."""

import hashlib
from collections.abc import Callable

import pytest

from imaging.check import CheckReport, Finding, Severity
from imaging.counting import CountingDevice
from imaging.formats import check_image
from imaging.memory import MemoryDevice
from tests.support.disks import KiB, MiB, pattern
from tests.support.vmdks import (
    GRAIN,
    SECTOR,
    Folder,
    SparseVmdk,
    StreamVmdk,
    descriptor,
    ovf,
    tar,
)

SIZE = 5 * MiB
GRAINS = {1: pattern(GRAIN, 1), 2: pattern(GRAIN, 2), 600: pattern(GRAIN, 3)}
READ = "check.content-unread"


def plain(**fields: object) -> SparseVmdk:
    return SparseVmdk(SIZE, **{"grains": GRAINS, **fields})


def stream(**fields: object) -> StreamVmdk:
    return StreamVmdk(SIZE, **{"grains": GRAINS, **fields})


def checked(content: bytes, form: str = "vmdk", **files: bytes) -> CheckReport:
    named = {name.replace("_", "."): data for name, data in files.items()}
    device = MemoryDevice(content, read_only=True)
    return check_image(device, format=form, name="top", siblings=Folder(named))


def codes(report: CheckReport) -> list[str]:
    return [finding.code for finding in report.findings]


def only(report: CheckReport) -> Finding:
    (found,) = report.findings
    return found


FLAT = descriptor(
    f'RW 100 FLAT "a.bin" 0\nRW 100 ZERO\nRW 100 FLAT "a.bin" 100\nRW {SIZE // SECTOR} SPARSE "b.vmdk"'
)
SOUND: dict[str, Callable[[], CheckReport]] = {
    "sparse": lambda: checked(plain().build()),
    "empty": lambda: checked(plain(grains={}).build()),
    "stream": lambda: checked(stream().build()),
    "stream of qemu": lambda: checked(stream(has_footer=False).build()),
    "extents": lambda: checked(
        FLAT.encode(), a_bin=pattern(200 * SECTOR), b_vmdk=plain(text="").build()
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_image_is_clean(name: str) -> None:
    report = SOUND[name]()
    assert (codes(report), report.clean) == ([READ] if "stream" in name else [], True)


def test_a_stream_without_a_grain_has_nothing_to_be_inflated() -> None:
    assert codes(checked(stream(grains={}).build())) == []


# --- headers and directories


@pytest.mark.parametrize("build", [plain, stream])
def test_an_image_that_its_writer_did_not_close(build: Callable[..., SparseVmdk]) -> None:
    found = checked(build(dirty=1).build()).findings[0]
    assert (found.code, found.severity, found.offset) == (
        "check.not-closed",
        Severity.WARNING,
        72,
    )


@pytest.mark.parametrize("name", ["directory", "spare"])
def test_the_damaged_one_of_two_directories_is_named(name: str) -> None:
    image = plain()
    place = image.places()[name] * SECTOR
    image.parts[place] = b"\xff\xff\xff\x00"
    found = only(checked(image.build()))
    assert (found.code, found.severity, found.offset) == (
        "check.copy-damaged",
        Severity.ERROR,
        place,
    )


def test_directories_that_differ_in_an_image_that_was_not_closed() -> None:
    image = plain(dirty=1, spare={2: 0})
    assert codes(checked(image.build())) == ["check.not-closed", "check.copy-damaged"]


def test_a_descriptor_that_says_another_size() -> None:
    text = descriptor('RW 5 SPARSE "self.vmdk"', create_type="monolithicSparse")
    found = only(checked(plain(text=text).build()))
    assert (found.code, found.severity) == ("check.sizes-differ", Severity.WARNING)
    assert f"the header says {SIZE} bytes, the descriptor 2560" in found.message


# --- space


def test_grains_that_no_table_names_are_leaked() -> None:
    content = plain().build()
    found = only(checked(content + pattern(2 * GRAIN)))
    assert (found.code, found.severity) == ("check.leaked-space", Severity.WARNING)
    assert (found.offset, found.length) == (len(content), 2 * GRAIN)
    lost = plain(entries={2: 0}).build()
    assert only(checked(lost)).offset == plain().places()["data"] * SECTOR + GRAIN


def test_less_than_a_grain_is_padding() -> None:
    assert codes(checked(plain(extra=bytes(GRAIN - SECTOR)).build())) == []
    assert codes(checked(stream(extra=bytes(GRAIN - SECTOR)).build())) == [READ]


@pytest.mark.parametrize("has_footer", [True, False])
def test_what_lies_between_the_grains_of_a_stream_is_leaked(*, has_footer: bool) -> None:
    report = checked(stream(extra=pattern(3 * GRAIN), has_footer=has_footer).build())
    assert codes(report) == [READ] + 3 * ["check.leaked-space"]
    assert all(found.length >= 3 * GRAIN for found in report.findings[1:])


def test_metadata_that_are_longer_than_a_grain_are_no_leaks() -> None:
    """9 GiB in grains of 8 KiB: directories of 9 KiB, tables of 5 MiB, and a descriptor of 10 KiB."""
    line = f'RW {9 << 21} SPARSE "self.vmdk"'
    text = descriptor(line, create_type="monolithicSparse", more="# more\n" * 1500)
    image = SparseVmdk(9 << 30, {5: pattern(GRAIN)}, text=text)
    assert codes(checked(image.build())) == []


@pytest.mark.parametrize(("rest", "found"), [(b"", []), (b"x" * 512, ["check.leaked-space"])])
def test_bytes_of_a_flat_extent_that_no_line_takes(rest: bytes, found: list[str]) -> None:
    text = descriptor('RW 100 FLAT "a.bin" 0').encode()
    assert codes(checked(text, a_bin=pattern(100 * SECTOR) + rest)) == found


def test_the_file_of_an_extent_is_named() -> None:
    report = checked(
        FLAT.encode(),
        a_bin=pattern(200 * SECTOR),
        b_vmdk=plain(text="", dirty=1).build() + pattern(GRAIN),
    )
    assert codes(report) == ["check.not-closed", "check.leaked-space"]
    for found in report.findings:
        assert found.message.startswith("b.vmdk: ")
        assert found.offset is None


# --- compressed grains


def test_a_marker_that_names_another_grain() -> None:
    found, *rest = checked(stream(markers={2: 77}).build()).findings
    assert (found.code, found.severity) == ("check.grain-damaged", Severity.ERROR)
    assert "that of sector 77" in found.message
    assert found.offset
    assert READ in [finding.code for finding in rest]


def test_a_grain_that_does_not_end_with_the_grains() -> None:
    image = StreamVmdk(MiB, {3: pattern(GRAIN)})
    content = bytearray(image.build())
    at = content.index((3 * GRAIN // SECTOR).to_bytes(8, "little"))
    content[at + 8 : at + 12] = (2 * GRAIN).to_bytes(4, "little")
    found = checked(bytes(content)).findings[0]
    assert (found.code, found.offset) == ("check.grain-damaged", at)
    assert "but the grains end at" in found.message


def test_no_grain_is_read_but_for_its_marker() -> None:
    grains = {number: pattern(64 * KiB, number) for number in range(40)}
    image = StreamVmdk(4 * MiB, grains, grain_size=64 * KiB, level=0)
    device = CountingDevice(MemoryDevice(image.build()))
    assert check_image(device, format="vmdk").clean
    assert device.bytes_read < 64 * KiB


# --- OVA


IMAGE = stream().build()
ONE = ovf({"f": "disk-1.vmdk"}, {"d": "f"})


def digest(name: str, content: bytes, algorithm: str = "sha256") -> str:
    value = hashlib.new(algorithm, content).hexdigest()
    return f"{algorithm.upper()}({name})= {value}\n"


WHOLE = digest("vm.ovf", ONE) + digest("disk-1.vmdk", IMAGE)


def appliance(manifest: str | None = WHOLE, image: bytes = IMAGE, **more: bytes) -> CheckReport:
    members = {"vm.ovf": ONE}
    if manifest is not None:
        members["vm.mf"] = manifest.encode()
    members |= {name.replace("_", "."): data for name, data in more.items()}
    return checked(tar({**members, "disk-1.vmdk": image}), "ova")


def test_a_member_is_hashed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.formats.ova.check._STEP", 1000)
    assert codes(appliance()) == [READ]


def test_a_disk_of_several_members() -> None:
    text = descriptor('RW 100 FLAT "a.bin"').encode()
    archive = {"vm.ovf": ONE, "disk-1.vmdk": text, "a.bin": pattern(101 * SECTOR)}
    found = only(checked(tar(archive), "ova"))
    assert (found.code, found.offset) == ("check.leaked-space", None)
    assert found.message.startswith("a.bin: 512 bytes at file offset 51200 ")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_digests_that_are_right_are_clean(algorithm: str) -> None:
    text = digest("vm.ovf", ONE, algorithm) + digest("disk-1.vmdk", IMAGE, algorithm).upper()
    text = text.replace("DISK-1.VMDK", "disk-1.vmdk").replace("(", " ( ", 1).replace("=", " =")
    report = appliance(text.replace("\n", "\r\n\r\n"))
    assert (codes(report), report.clean) == ([READ], True)


def test_an_appliance_without_a_manifest_is_clean() -> None:
    assert codes(appliance(None)) == [READ]


def test_a_member_that_changed() -> None:
    found = appliance(digest("vm.ovf", b"another") + digest("disk-1.vmdk", IMAGE)).findings[0]
    assert (found.code, found.severity) == ("check.digest-differs", Severity.ERROR)
    assert (found.offset, found.length) == (512, len(ONE))
    assert hashlib.sha256(ONE).hexdigest() in found.message


@pytest.mark.parametrize(
    ("manifest", "code", "what"),
    [
        (digest("vm.ovf", ONE), "check.digest-missing", "no digest of 'disk-1.vmdk'"),
        (WHOLE + digest("gone.vmdk", b""), "check.digest-missing", "'gone.vmdk', which is not in"),
        (WHOLE + digest("vm.ovf", ONE), "check.manifest-damaged", "names 'vm.ovf' twice"),
        (WHOLE + "MD5(vm.ovf)= 00\n", "check.manifest-damaged", "'MD5'"),
        (WHOLE + "# a comment\n", "check.manifest-damaged", "'# a comment'"),
        (WHOLE + "SHA1(vm.ovf)= xyz", "check.manifest-damaged", "xyz"),
        (WHOLE + "\n" * (1 << 20), "check.manifest-damaged", "expected up to 1048576"),
    ],
)
def test_what_else_is_wrong_with_a_manifest(manifest: str, code: str, what: str) -> None:
    report = appliance(manifest)
    assert codes(report) == [code, READ]
    assert what in report.findings[0].message


def test_a_signature_is_not_verified_which_is_told() -> None:
    report = appliance(vm_cert=b"PEM")
    assert (codes(report), report.clean) == (["check.signature-unread", READ], True)


def test_findings_of_the_disk_have_their_place_in_the_archive() -> None:
    image = stream(markers={2: 77}).build()
    inside = checked(image).findings[0]
    report = appliance(digest("vm.ovf", ONE) + digest("disk-1.vmdk", image), image=image)
    found = report.findings[0]
    assert (found.code, found.severity) == ("check.grain-damaged", Severity.ERROR)
    content = tar({"vm.ovf": ONE, "vm.mf": bytes(len(WHOLE)), "disk-1.vmdk": image})
    assert inside.offset is not None
    assert found.offset == content.index(image) + inside.offset
