"""Any difference in a file's identity is a change, and it is named."""

from dataclasses import replace

import pytest

from agent.shares.base import FileIdentity
from agent.shares.errors import FileChanged
from agent.shares.identity import require_unchanged

BEFORE = FileIdentity(size=10, write_time_ns=20, change_time_ns=30, file_id=40)


def test_the_same_version_passes() -> None:
    require_unchanged("a", BEFORE, replace(BEFORE))


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("size", "size was 10, is 99"),
        ("write_time_ns", "time of last write was 20, is 99"),
        ("change_time_ns", "time of last change was 30, is 99"),
        ("file_id", "file number was 40, is 99"),
    ],
)
def test_each_field_alone_makes_another_version(field: str, words: str) -> None:
    with pytest.raises(FileChanged, match=words) as caught:
        require_unchanged("gold.vhdx", BEFORE, replace(BEFORE, **{field: 99}))
    assert caught.value.fields == {"path": "gold.vhdx", "changed": [field]}
