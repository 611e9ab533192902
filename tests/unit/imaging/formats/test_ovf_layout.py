"""OVF descriptors: the disks that have a file, from XML that can do no harm."""

import pytest

from imaging.errors import ImagingError, InvalidImage, UnsupportedImage
from imaging.formats.ova.ovf import parse_ovf
from tests.support.vmdks import ovf

ONE = {"file1": "disk-1.vmdk"}


def refusal(data: bytes) -> ImagingError:
    with pytest.raises(ImagingError) as caught:
        parse_ovf(data)
    return caught.value


def test_a_disk_and_its_file() -> None:
    (disk,) = parse_ovf(ovf(ONE, {"vmdisk1": "file1"}, attributes='ovf:size="1234"'))
    assert (disk.disk_id, disk.href, disk.size) == ("vmdisk1", "disk-1.vmdk", 1234)
    assert (disk.compression, disk.is_chunked) == ("", False)
    assert "vmdk" in disk.format


def test_disks_without_a_file_and_files_without_a_disk_are_no_disks() -> None:
    found = parse_ovf(ovf(ONE | {"iso": "a.iso"}, {"empty": None, "a": "file1", "b": "file1"}))
    assert [disk.disk_id for disk in found] == ["a", "b"]
    assert parse_ovf(ovf(ONE, {})) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_encodings_of_xml(encoding: str) -> None:
    text = ovf({"file1": "größe.vmdk"}, {"d": "file1"}).decode()
    text = text.replace("UTF-8", encoding)
    assert parse_ovf(text.encode(encoding))[0].href == "größe.vmdk"


def test_every_version_of_the_namespace() -> None:
    data = ovf(ONE, {"d": "file1"}).replace(b"/ovf/envelope/1", b"/ovf/envelope/2")
    assert len(parse_ovf(data)) == 1


def test_compression_and_chunks_are_told() -> None:
    attributes = 'ovf:compression="gzip" ovf:chunkSize="1000"'
    (disk,) = parse_ovf(ovf(ONE, {"d": "file1"}, attributes=attributes))
    assert (disk.compression, disk.is_chunked) == ("gzip", True)
    (disk,) = parse_ovf(ovf(ONE, {"d": "file1"}, attributes='ovf:compression="identity"'))
    assert disk.compression == ""


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("head", [BOMB, OUTSIDE, "<!DOCTYPE x>"], ids=["bomb", "file", "bare"])
def test_a_document_type_is_refused_in_every_encoding(head: str, encoding: str) -> None:
    text = ovf(ONE, {"d": "file1"}, head=head).decode().replace("UTF-8", encoding)
    assert "document type" in str(refusal(text.encode(encoding)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"<a>",
        b"<a></b>",
        b"not xml",
        b'<?xml version="1.0" encoding="rot13"?><a/>',
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b'<?xml version="1.0" encoding="gbk"?><a/>',
        b"<a>&b;</a>",
        b"<a>\xff\xfe</a>",
    ],
)
def test_what_is_no_xml_is_refused(data: bytes) -> None:
    assert isinstance(refusal(data), InvalidImage)


def test_references_must_lead_to_one_file() -> None:
    assert "lacks" in str(refusal(ovf(ONE, {"d": "file2"})))
    twice = ovf(ONE, {}).replace(b"</References>", b'<File ovf:id="file1"/></References>')
    assert "two files" in str(refusal(twice))
    assert "size" in str(refusal(ovf(ONE, {"d": "file1"}, attributes='ovf:size="1e9"')))
    delta = ovf(ONE, {"d": "file1"}).replace(b"ovf:fileRef", b'ovf:parentRef="p" ovf:fileRef')
    assert isinstance(refusal(delta), UnsupportedImage)


def test_too_many_files_are_refused() -> None:
    assert "more than" in str(refusal(ovf({f"f{n}": "x" for n in range(1025)}, {})))
