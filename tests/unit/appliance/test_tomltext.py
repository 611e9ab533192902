"""What is written as TOML is read back as it was, whatever it holds."""

import os
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tomltext import quoted


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    assert tomllib.loads(f"key = {quoted(text)}") == {"key": text}


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "\x7f", "\U0001f600", 'x"\nroot = "y'])
def test_what_breaks_out_of_quotes_comes_back(text: str) -> None:
    assert tomllib.loads(f"key = {quoted(text)}") == {"key": text}


def test_what_no_toml_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        quoted(os.fsdecode(b"\xff"))
