"""Members of an archive: found by offset, bounded by the file, never a link."""

import io
import tarfile

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    FileMissing,
    ImagingError,
    InvalidImage,
    ReferenceRefused,
    Truncated,
    UnsupportedImage,
)
from imaging.formats.tar.members import MAX_MEMBERS, TarFolder, TarMember, tar_members
from imaging.memory import MemoryDevice
from imaging.overlay import OverlayDevice
from tests.support.vmdks import tar

MEMBERS = {"vm.ovf": b"<x/>", "disk.vmdk": bytes(range(256)) * 5, "empty": b"", "last": b"z" * 512}


def members(content: bytes) -> list[TarMember]:
    return list(tar_members(MemoryDevice(content)))


def refusal(content: bytes) -> ImagingError:
    with pytest.raises(ImagingError) as caught:
        members(content)
    return caught.value


def special(kind: bytes, name: str = "x", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_their_bytes_are(form: int) -> None:
    content = tar(MEMBERS, form)
    found = {each.name: content[each.offset : each.offset + each.size] for each in members(content)}
    assert found == MEMBERS


def test_a_pax_header_gives_name_and_size() -> None:
    long = "d" * 200 + ".vmdk"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(long)
        info.size, info.pax_headers = 9, {"size": "9"}
        archive.addfile(info, io.BytesIO(b"123456789"))
        archive.addfile(tarfile.TarInfo("next"))
    assert [(each.name[-5:], each.size) for each in members(out.getvalue())] == [
        (".vmdk", 9),
        ("next", 0),
    ]


def test_folders_and_a_leading_dot_do_not_matter() -> None:
    content = special(tarfile.DIRTYPE, "./") + tar({"./disk.vmdk": b"1"})
    assert [each.name for each in members(content)] == ["disk.vmdk"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (tarfile.SYMTYPE, ReferenceRefused),
        (tarfile.LNKTYPE, ReferenceRefused),
        (tarfile.CHRTYPE, UnsupportedImage),
        (tarfile.BLKTYPE, UnsupportedImage),
        (tarfile.FIFOTYPE, UnsupportedImage),
        (tarfile.GNUTYPE_SPARSE, UnsupportedImage),
    ],
)
def test_links_and_devices_are_refused(kind: bytes, error: type[ImagingError]) -> None:
    content = tar({"vm.ovf": b""})[:512] + special(kind, linkname="/etc/passwd")
    err = refusal(content)
    assert isinstance(err, error)
    assert err.fields["offset"] == 512


def test_an_archive_that_ends_before_its_end_mark_is_truncated() -> None:
    content = tar(MEMBERS)
    last = max(each.offset + each.size for each in members(content))
    for end in [*range(0, last, 128), last, last + 511]:
        assert isinstance(refusal(content[:end]), Truncated)
    assert len(members(content[: last + 512])) == len(MEMBERS)


def test_a_size_beyond_the_file_is_truncated_however_big() -> None:
    info = tarfile.TarInfo("big")
    info.size = 1 << 45
    err = refusal(info.tobuf(tarfile.GNU_FORMAT))
    assert isinstance(err, Truncated)
    assert "the member 'big' ends at" in str(err)


def test_too_many_members_are_refused() -> None:
    block = special(tarfile.REGTYPE)
    assert len(members(block * (MAX_MEMBERS - 1) + bytes(512))) == MAX_MEMBERS - 1
    assert isinstance(refusal(block * (MAX_MEMBERS + 1)), InvalidImage)


def test_a_long_pax_header_is_not_read() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    file = OverlayDevice(MemoryDevice(info.tobuf(tarfile.USTAR_FORMAT)), size=1 << 31)
    with pytest.raises(InvalidImage, match="pax header of"):
        list(tar_members(file))


def test_a_folder_opens_members_by_name() -> None:
    file = MemoryDevice(tar(MEMBERS))
    folder = TarFolder(file, {each.name: each for each in tar_members(file)})
    opened = folder.open("disk.vmdk")
    assert read_bytes(opened, 0, opened.size) == MEMBERS["disk.vmdk"]
    with pytest.raises(FileMissing, match="no member '/etc/passwd'"):
        folder.open("/etc/passwd")
