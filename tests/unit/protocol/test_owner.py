"""Owner tags: ours, of this very object, or nothing."""

from dataclasses import replace

import pytest

from protocol.owner import ObjectPlace, make_tag, read_tag

KEY = b"k" * 32
PLACE = ObjectPlace("azure", "account", "westeurope", "disk-1")
TAG = make_tag(KEY, PLACE, appliance="site-1", origin="ab" * 16, attempt=2)


def test_a_tag_is_read_back_from_a_clouds_strings() -> None:
    assert read_tag(TAG.as_tags() | {"team": "vdi"}, KEY, PLACE) == TAG


@pytest.mark.parametrize(
    ("tags", "key", "place"),
    [
        ({}, KEY, PLACE),
        (TAG.as_tags(), b"l" * 32, PLACE),
        (TAG.as_tags(), KEY, replace(PLACE, provider="aws")),
        (TAG.as_tags(), KEY, replace(PLACE, account="other")),
        (TAG.as_tags(), KEY, replace(PLACE, region="other")),
        (TAG.as_tags(), KEY, replace(PLACE, name="disk-2")),
        (replace(TAG, origin="cd" * 16).as_tags(), KEY, PLACE),
        (TAG.as_tags() | {"imageport-attempt": "two"}, KEY, PLACE),
        (TAG.as_tags() | {"imageport-mac": "\ud800"}, KEY, PLACE),
        (TAG.as_tags() | {"imageport-origin": "\ud800"}, KEY, PLACE),
    ],
    ids=[
        "none",
        "other key",
        "provider",
        "account",
        "region",
        "name",
        "origin",
        "attempt",
        "mac no text",
        "origin no text",
    ],
)
def test_anything_else_is_not_ours(tags: dict[str, str], key: bytes, place: ObjectPlace) -> None:
    assert read_tag(tags, key, place) is None
