import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.api.context import make_cursor, number_cursor, read_cursor
from relay.errors import BadCursor


@given(position=st.integers(0, 10**17))
def test_cursor_comes_back_as_its_number(position: int) -> None:
    assert number_cursor(make_cursor(position)) == position


@given(text=st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789-"), max_size=64))
def test_cursor_comes_back_as_its_text(text: str) -> None:
    assert read_cursor(make_cursor(text)) == text


@given(text=st.text(max_size=40))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    with contextlib.suppress(BadCursor):
        assert number_cursor(text) >= 0


@pytest.mark.parametrize("text", ["!", "LTE", "MS41", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "wrI"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        number_cursor(text)
