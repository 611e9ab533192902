"""Tar headers: what every writer makes is read, and nothing else is taken for one."""

import io
import tarfile

import pytest

from imaging.errors import InvalidImage
from imaging.formats.tar.layout import TarHeader, parse_pax, parse_tar_header, pax_size

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def header(form: int = tarfile.USTAR_FORMAT, **fields: object) -> bytes:
    info = tarfile.TarInfo("disk.vmdk")
    info.size, info.mtime, info.uname = 4097, 1_700_000_000, "builder"
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(form)[:512]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_headers_of_every_writer(form: int) -> None:
    assert parse_tar_header(header(form), 0) == TarHeader("disk.vmdk", 4097, "0")


def test_sizes_beyond_eight_gib_are_base_256() -> None:
    found = parse_tar_header(header(tarfile.GNU_FORMAT, size=1 << 40), 0)
    assert found is not None
    assert found.size == 1 << 40


def test_long_names_have_a_prefix() -> None:
    name = "a" * 90 + "/" + "b" * 90
    found = parse_tar_header(header(name=name), 0)
    assert found is not None
    assert found.name == name


def test_zeros_end_an_archive() -> None:
    assert parse_tar_header(bytes(512), 0) is None


@pytest.mark.parametrize("at", [0, 60, 124, 130, 150, 156, 257, 262, 300, 511])
def test_a_flipped_bit_is_found(at: int) -> None:
    block = bytearray(header())
    block[at] ^= 1
    with pytest.raises(InvalidImage):
        parse_tar_header(bytes(block), 1024)


def test_a_size_that_no_disk_has_is_refused() -> None:
    with pytest.raises(InvalidImage, match="a tar member of"):
        parse_tar_header(header(tarfile.GNU_FORMAT, size=1 << 60), 0)


def test_pax_records() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("größe-" * 30)
        info.pax_headers = {"size": "123"}
        archive.addfile(info)
    content = out.getvalue()
    first = parse_tar_header(content[:512], 0)
    assert first is not None
    assert first.type == "x"
    assert parse_pax(content[512 : 512 + first.size], 512)["path"] == "größe-" * 30


@pytest.mark.parametrize(
    "content",
    [b"x", b"5 a=b\n", b"7 a=b\n", b"6 ab\n", b"0 a=b\n", b"-6 a=b\n", b"6 a=bb", b"99999 a=b\n"],
)
def test_damaged_pax_records_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidImage):
        parse_pax(content, 512)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 21, str(1 << 60)])
def test_pax_sizes_are_numbers_of_bytes(text: str) -> None:
    with pytest.raises(InvalidImage):
        pax_size(text, 0)
    assert pax_size("123", 0) == 123
