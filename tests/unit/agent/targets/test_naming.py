"""The table of if_exists, cell by cell."""

import pytest

from agent.targets.errors import IfExistsUnsupported, NotOurs, TargetExists
from agent.targets.naming import Choice, Found, choose_name

UNFINISHED = Found(ours=True, final=False, where="disk x")
FINISHED = Found(ours=True, final=True, where="disk x")
FOREIGN = Found(ours=False, final=True, where="disk x")


async def choose(if_exists, *there, known=(), can_replace=True):
    names = dict(zip(["x", "x-v2", "x-v3"], there, strict=False))

    async def look(name):
        return names.get(name)

    return await choose_name(
        "x", if_exists, known=lambda name: name in known, look=look, can_replace=can_replace
    )


@pytest.mark.parametrize("if_exists", ["fail", "resume", "replace", "new-version"])
async def test_a_free_name_is_taken(if_exists):
    assert await choose(if_exists) == Choice("x", replaces=False)


@pytest.mark.parametrize(
    ("if_exists", "found", "expected"),
    [
        ("resume", UNFINISHED, Choice("x", replaces=False)),
        ("replace", UNFINISHED, Choice("x", replaces=False)),
        ("replace", FINISHED, Choice("x", replaces=True)),
        ("new-version", FINISHED, Choice("x-v2", replaces=False)),
        ("new-version", FOREIGN, Choice("x-v2", replaces=False)),
        ("new-version", UNFINISHED, Choice("x-v2", replaces=False)),
    ],
)
async def test_what_may_be_taken(if_exists, found, expected):
    assert await choose(if_exists, found) == expected


@pytest.mark.parametrize(
    ("if_exists", "found", "error"),
    [
        ("fail", UNFINISHED, TargetExists),
        ("fail", FINISHED, TargetExists),
        ("fail", FOREIGN, TargetExists),
        ("resume", FINISHED, TargetExists),
        ("resume", FOREIGN, NotOurs),
        ("replace", FOREIGN, NotOurs),
    ],
)
async def test_what_must_not_be_touched(if_exists, found, error):
    with pytest.raises(error, match="disk x"):
        await choose(if_exists, found)


async def test_a_target_without_rename_cannot_replace():
    with pytest.raises(IfExistsUnsupported):
        await choose("replace", FINISHED, can_replace=False)


async def test_a_name_that_this_line_recorded_is_taken_again_whatever_is_there():
    assert (await choose("fail", FOREIGN, known=("x",))).name == "x"
    assert (await choose("new-version", FOREIGN, None, known=("x-v2",))).name == "x-v2"


async def test_the_next_free_version_is_taken():
    assert (await choose("new-version", FINISHED, FOREIGN)).name == "x-v3"
