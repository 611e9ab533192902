"""Paths that may reach a share, and those that may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.shares.errors import BadPath
from agent.shares.paths import MAX_NAME_CHARS, MAX_PATH_CHARS, join, normalise

GOOD = [
    "image.vhdx",
    "gold/win 11/image (1).vhdx",
    "Böse/日本語.vhd",
    ".hidden",
    "CONSOLE.vhd",
    "com10.vhd",
    "a" * MAX_NAME_CHARS,
]

BAD = {
    "parent": "../image.vhdx",
    "parent inside": "a/../../b",
    "here": "./a",
    "absolute": "/etc/passwd",
    "drive": "C:/image.vhdx",
    "unc": "//server/share",
    "backslash": "a\\b",
    "backslash parent": "..\\b",
    "stream": "image.vhdx:secret",
    "doubled slash": "a//b",
    "trailing slash": "a/",
    "wildcard": "*.vhdx",
    "pipe": "a|b",
    "quote": 'a"b',
    "nul": "a\0b",
    "newline": "a\nb",
    "delete": "a\x7fb",
    "trailing dot": "image.",
    "trailing blank": "image ",
    "three dots": "...",
    "device": "NUL",
    "device with extension": "a/com1.vhd",
    "device in lower case": "aux/b",
    "half a surrogate": "a\ud800b",
    "long name": "a" * (MAX_NAME_CHARS + 1),
    "long path": "a/" * MAX_PATH_CHARS + "a",
    "empty": "",
}


@pytest.mark.parametrize("path", GOOD)
def test_a_plain_relative_path_is_returned_as_it_is(path: str) -> None:
    assert normalise(path) == path


@pytest.mark.parametrize("path", BAD.values(), ids=BAD.keys())
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(BadPath) as caught:
        normalise(path)
    assert caught.value.code == "share.bad-path"


def test_the_root_is_a_path_only_where_a_folder_is_meant() -> None:
    assert normalise("", allow_root=True) == ""


def test_join_leaves_no_empty_name() -> None:
    assert [join("", "a"), join("f", ""), join("f/g", "a/b"), join("", "")] == [
        "a",
        "f",
        "f/g/a/b",
        "",
    ]


@given(st.text(alphabet=st.characters() | st.sampled_from("./\\:"), max_size=40))
def test_what_passes_stays_below_the_share(path: str) -> None:
    try:
        names = normalise(path).split("/")
    except BadPath:
        return
    assert "".join(names)
    assert not {"", ".", ".."} & set(names)
    assert "/".join(names).encode("utf-16-le")
