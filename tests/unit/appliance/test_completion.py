"""Completion scripts hold every command and verb, and bash really completes with them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.cli.completion import bash, fish, walk
from appliance.cli.main import COMMANDS, full_parser

PLACES = list(walk(full_parser()))
PARSERS = {"bash": "-n", "zsh": "-n", "fish": "--no-execute"}


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
    assert """-n '__imageport_at "disk"' -a 'info map digest check compare convert'""" in fish(
        PLACES
    )
    assert """-n '__imageport_at "image upload"' -l plan""" in fish(PLACES)
    assert """-n '__imageport_at "key new"' -s o""" in fish(PLACES)


def test_zsh_gets_nothing_that_only_bash_reads() -> None:
    script = bash(PLACES, zsh=True)
    assert ":COMP_CWORD" not in script  # zsh takes `:C` for a modifier: every Tab was an error
    assert "local path" not in script  # zsh's own name for PATH


@pytest.mark.parametrize("shell", [name for name in PARSERS if shutil.which(name)])
def test_the_shell_itself_parses_its_script(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(fish(PLACES) if shell == "fish" else bash(PLACES, zsh=shell == "zsh"))
    done = subprocess.run([shell, PARSERS[shell], script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_help_hides_is_not_completed() -> None:
    hidden = [place.path for place in PLACES if place.path and "--debug" in place.words]
    assert hidden == []
