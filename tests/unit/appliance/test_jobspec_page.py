"""docs/jobspec.md names every key of a spec that the code knows, with its default, and no other."""

import re
from pathlib import Path

import msgspec
import pytest

from appliance.cli import credential, spec

PAGE = Path(__file__).parents[3] / "docs" / "jobspec.md"
NEEDED = "needed"


def section(title: str) -> str:
    return PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize(
    ("title", "keys"),
    [("Top", {*spec.TOP} - {"source", "target", "options"}), ("[options]", {*spec.OPTIONS})],
)
def test_plain_tables_hold_the_known_keys(title: str, keys: set[str]) -> None:
    assert {key for row in rows(title) for key in named(row[0])} == keys


@pytest.mark.parametrize("place", ["source", "target"])
def test_places_hold_every_key_of_every_kind_with_its_default(place: str) -> None:
    shown: dict[str, dict[str, str]] = {}
    kind = ""
    for first, keys, default, _ in rows(f"[{place}]"):
        kind = (named(first) or [kind])[0]
        shown.setdefault(kind, {}).update(dict.fromkeys(named(keys), default))
    known = spec._PLACES[place]
    assert shown.keys() == known.keys()
    for name, struct in known.items():
        fields = {field.name: field for field in msgspec.structs.fields(struct)}
        assert shown[name].keys() == fields.keys()
        for key, field in fields.items():
            if key != "credential":
                assert (shown[name][key] == NEEDED) is field.required, (name, key)
            if field.default not in {msgspec.NODEFAULT, None, "", ()}:
                assert str(field.default) in shown[name][key], (name, key)


def test_credentials_hold_every_key() -> None:
    shown = {
        named(row[0])[0]: set(named(row[1]))
        for row in rows("[source.credential], [target.credential]")
    }
    known = {kind: set().union(*sets) for kind, sets in credential._ACCEPTED.items()}
    assert shown == known
