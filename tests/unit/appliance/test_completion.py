"""Completion scripts hold every command and verb, and bash really completes with them."""

import subprocess

import pytest

from appliance.cli.completion import bash, fish, walk
from appliance.cli.main import COMMANDS, full_parser

PLACES = list(walk(full_parser()))


def test_every_command_and_verb_is_a_place() -> None:
    paths = {place.path for place in PLACES}
    assert {(command.name,) for command in COMMANDS} <= paths
    assert ("disk", "digest") in paths
    assert ("signer", "caller", "add") in paths


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["im"], {"image"}),
        (["disk", "d"], {"digest"}),
        (["image", "upload", "--pl"], {"--plan"}),
        (["signer", "caller", "a"], {"add"}),
        (["completion", "f"], {"fish"}),
    ],
    ids=" ".join,
)
def test_bash_completes(words: list[str], expected: set[str]) -> None:
    line = " ".join(f'"{word}"' for word in ["imageport", *words])
    script = (
        f"{bash(PLACES, zsh=False)}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}\n_imageport\n"
    )
    script += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected


def test_the_scripts_of_the_other_shells_name_what_they_complete() -> None:
    assert "bashcompinit" in bash(PLACES, zsh=True)
    assert "__fish_seen_subcommand_from disk" in fish(PLACES)
    assert "-l plan" in fish(PLACES)
