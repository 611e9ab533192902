"""What a server says is in a folder: read as the documents say, and never trusted."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smbprotocol.exceptions import SMBResponseException
from smbprotocol.header import SMB2HeaderResponse
from smbprotocol.structure import BytesField

from agent.shares.base import Entry
from agent.shares.smb.listing import list_entries, parse_entries
from agent.shares.smb.seal import Tampered
from agent.shares.smb.status import NO_MORE_FILES

IN_1970 = 116_444_736_000_000_000


def _entry(name: str, *, following: int = 0, size: int = 5, folder: bool = False) -> bytes:
    text = name.encode("utf-16-le", "surrogatepass")
    head = struct.pack(
        "<IIQQQQQQII", following, 0, 1, 2, IN_1970 + 3, 4, size, 4096, 0x10 if folder else 0x20, len(text)
    )  # fmt: skip
    return head + text


def _page(*names: str) -> bytes:
    entries = [_entry(name) for name in names]
    padded = [entry.ljust(-(-len(entry) // 8) * 8, b"\0") for entry in entries[:-1]]
    chained = [struct.pack("<I", len(entry)) + entry[4:] for entry in padded]
    return b"".join([*chained, entries[-1]])


class FakeOpen:
    """An open folder, as far as the call looks."""

    file_id = b"f" * 16


class FakeLink:
    """A link whose server answers with one page after the other, then with the end."""

    def __init__(self, pages: Iterator[bytes]) -> None:
        self.pages = pages

    def ask(self, _: Any) -> dict[str, BytesField]:
        page = next(self.pages, None)
        if page is None:
            header = SMB2HeaderResponse()
            header["status"] = NO_MORE_FILES
            raise SMBResponseException(header)
        data = BytesField()
        data.set_value(struct.pack("<HHI", 9, 72, len(page)) + page)
        return {"data": data}


def test_an_entry_has_every_field_at_its_place() -> None:
    file, folder = _entry("a.vhdx", size=77), _entry("sub", folder=True)
    assert list(parse_entries(file)) == [Entry("a.vhdx", False, 77, 4096, 300)]
    assert list(parse_entries(folder)) == [Entry("sub", True, 0, 0, 300)]


def test_pages_are_put_together_and_sorted_without_the_dots() -> None:
    pages = iter([_page(".", "..", "b"), _page("c", "\U0001f4bf.vhd"), _page("a")])
    found = list_entries(FakeLink(pages), FakeOpen())  # type: ignore[arg-type]
    assert [entry.name for entry in found] == ["a", "b", "c", "\U0001f4bf.vhd"]


@pytest.mark.parametrize(
    "page",
    [b"", _page("abc")[:-1], _page("abc")[:60], _entry("x", following=8) + bytes(80), _entry("x", following=2**32 - 1)],
    ids=["nothing", "cut name", "cut entry", "overlap", "far away"],
)  # fmt: skip
def test_lengths_are_not_trusted(page: bytes) -> None:
    with pytest.raises(Tampered):
        list(parse_entries(page))


@given(st.binary(max_size=300))
def test_junk_is_refused_or_has_entries(page: bytes) -> None:
    try:
        for entry in parse_entries(page):
            assert isinstance(entry.name, str)
    except Tampered:
        pass


def test_a_server_that_repeats_itself_for_ever_is_refused() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield _page("again")

    with pytest.raises(Tampered, match="repeats"):
        list_entries(FakeLink(endless()), FakeOpen())  # type: ignore[arg-type]
