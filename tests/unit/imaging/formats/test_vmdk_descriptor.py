"""Descriptor text: every way that writers write it, and no line that is skipped because it was not understood."""

import pytest

from imaging.errors import ImagingError, InvalidImage, UnsupportedImage
from imaging.formats.vmdk.descriptor import (
    MAX_EXTENTS,
    Descriptor,
    ExtentLine,
    ExtentType,
    parse_descriptor,
)
from tests.support.vmdks import descriptor

LINE = 'RW 2048 SPARSE "disk-s001.vmdk"'


def parsed(text: str | bytes) -> Descriptor:
    return parse_descriptor(text if isinstance(text, bytes) else text.encode())


def refusal(text: str | bytes) -> ImagingError:
    with pytest.raises((InvalidImage, UnsupportedImage)) as caught:
        parsed(text)
    return caught.value


def test_a_descriptor_says_what_the_disk_is_made_of() -> None:
    found = parsed(
        descriptor(
            LINE,
            "RW 100 ZERO",
            'RDONLY 8 FLAT "a b.vmdk" 63',
            'RW 16 VMFS "c.vmdk"',
            create_type="custom",
            cid="0a1B2c3D",
        )
    )
    assert (found.create_type, found.cid, found.parent_cid) == ("custom", 0x0A1B2C3D, None)
    assert found.extents == (
        ExtentLine(2048 * 512, ExtentType.SPARSE, "disk-s001.vmdk", 0),
        ExtentLine(100 * 512, ExtentType.ZERO, "", 0),
        ExtentLine(8 * 512, ExtentType.FLAT, "a b.vmdk", 63 * 512),
        ExtentLine(16 * 512, ExtentType.VMFS, "c.vmdk", 0),
    )
    assert found.virtual_size == (2048 + 100 + 8 + 16) * 512


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("tail", ["", "\0" * 700, "\0garbage"], ids=["bare", "nul", "behind-nul"])
def test_line_ends_and_padding_do_not_matter(newline: str, tail: str) -> None:
    text = descriptor(LINE, newline=newline)
    assert parsed(text + tail) == parsed(descriptor(LINE))


def test_case_spaces_and_quotes_do_not_matter() -> None:
    text = (
        "# Disk DescriptorFile\nVERSION = 1\n\tcid\t=\t0000002a  \nParentCid = FFFFFFFF\n"
        'CREATETYPE = "MONOLITHICFLAT"\n  rw\t 2048   flat\t"x.vmdk"  0 \nddb.comment = "a = \\"b\\""\n'
    )
    found = parsed(text)
    assert (found.create_type, found.cid, found.parent_cid) == ("monolithicFlat", 42, None)
    assert found.extents == (ExtentLine(2048 * 512, ExtentType.FLAT, "x.vmdk", 0),)


def test_a_delta_link_names_its_parent() -> None:
    found = parsed(descriptor(LINE, parent=("0000abcd", "C:\\VMs\\base disk.vmdk")))
    assert (found.parent_cid, found.parent_hint) == (0xABCD, "C:\\VMs\\base disk.vmdk")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("UTF-8", "プラン.vmdk"),
        ("windows-1252", "größe.vmdk"),
        ("GBK", "磁盘.vmdk"),
        ("Shift_JIS", "ディスク.vmdk"),
        ("Big5", "磁碟.vmdk"),
        ("windows-1251", "диск.vmdk"),
        ("ISO-8859-15", "prix€.vmdk"),
    ],
)
def test_names_are_in_the_encoding_that_the_text_names(encoding: str, name: str) -> None:
    text = descriptor(f'RW 8 FLAT "{name}"', more=f'encoding="{encoding}"')
    assert parsed(text.encode(encoding)).extents[0].name == name


def test_without_an_encoding_names_are_utf8_or_bytes() -> None:
    text = descriptor('RW 8 FLAT "größe.vmdk"')
    assert parsed(text.encode()).extents[0].name == "größe.vmdk"
    assert parsed(text.encode("latin-1")).extents[0].name == "größe.vmdk"


def test_what_unicode_calls_a_line_end_may_be_in_a_name() -> None:
    name = "a\u2028b\x85c\x0bd.vmdk"
    assert parsed(descriptor(f'RW 8 FLAT "{name}"')).extents[0].name == name


@pytest.mark.parametrize("encoding", ["rot13", "zip", "idna", "unicode_escape", "utf-7", "x" * 99])
def test_what_is_no_encoding_of_text_is_refused(encoding: str) -> None:
    assert "encoding" in str(refusal(descriptor(LINE, more=f'encoding="{encoding}"')))


def test_text_that_is_not_in_its_encoding_is_refused() -> None:
    text = descriptor('RW 8 FLAT "ö.vmdk"', more='encoding="UTF-8"').encode("latin-1")
    assert "not in its encoding utf-8" in str(refusal(text))


@pytest.mark.parametrize(
    "kind", ["VMFSSPARSE", "SESPARSE", "VMFSRDM", "VMFSRAW", "VMFSRDMP", "COWD", "NEW"]
)
def test_other_extents_are_refused_by_name(kind: str) -> None:
    err = refusal(descriptor(f'RW 8 {kind} "a.vmdk"'))
    assert isinstance(err, UnsupportedImage)
    assert err.fields["found"] == kind
    assert "line 8" in str(err)


@pytest.mark.parametrize(
    "create_type",
    [
        "vmfsSparse",
        "seSparse",
        "vmfsRawDeviceMap",
        "vmfsRaw",
        "fullDevice",
        "partitionedDevice",
        "x",
    ],
)
def test_other_disks_are_refused_by_name(create_type: str) -> None:
    err = refusal(descriptor(LINE, create_type=create_type))
    assert isinstance(err, UnsupportedImage)
    assert create_type in str(err)


@pytest.mark.parametrize(
    "line",
    [
        "RW 8 ZERO extra",
        'RW 8 ZERO "a.vmdk"',
        "RW 8 FLAT",
        'RW 8 FLAT ""',
        "RW 8 FLAT a.vmdk",
        'RW 8 FLAT "a.vmdk" x',
        'RW 8 FLAT "a.vmdk"7',
        'RW 8 FLAT "a.vmdk" -1',
        'RW 8 FLAT "a.vmdk" 1 2',
        'RW 8 SPARSE "a.vmdk" 5',
        'RW 0 FLAT "a.vmdk"',
        'RW -8 FLAT "a.vmdk"',
        'RW 0x8 FLAT "a.vmdk"',
        'RW 99999999999999999999 FLAT "a.vmdk"',
        'RW 274877906945 FLAT "a.vmdk"',
        'NOACCESS 8 FLAT "a.vmdk"',
        'WR 8 FLAT "a.vmdk"',
        'RW 8 FLAT "a.vmdk',
        "what is this",
    ],
)
def test_a_line_that_is_not_understood_is_an_error(line: str) -> None:
    refusal(descriptor(LINE, line))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Disk Descriptor",
        descriptor(),
        descriptor(LINE).replace("version=1", "version=4"),
        descriptor(LINE).replace("version=1\n", ""),
        descriptor(LINE).replace("CID=1", "CID=x"),
        descriptor(LINE).replace("CID=12345678\n", ""),
        descriptor(LINE).replace("=12345678", "=112345678"),
        descriptor(LINE).replace("createType", "createTypo"),
        descriptor(LINE, more="CID=00000001"),
        descriptor(LINE, more='encryption.keySafe = "vmware:key"'),
        descriptor(*['RW 274877906944 FLAT "a.vmdk"'] * 2),
        descriptor(*["RW 1 ZERO"] * (MAX_EXTENTS + 1)),
    ],
    ids=[
        "empty",
        "no-signature",
        "no-extents",
        "version",
        "no-version",
        "cid",
        "no-cid",
        "long-cid",
        "no-type",
        "two-cids",
        "encrypted",
        "128-tib",
        "many",
    ],
)
def test_a_descriptor_that_breaks_the_rules_is_refused(text: str) -> None:
    refusal(text)


def test_keys_of_the_disk_data_base_may_come_twice() -> None:
    assert parsed(descriptor(LINE, more='ddb.x = "1"\nddb.x = "2"\nCID=12345678')).cid == 0x12345678
