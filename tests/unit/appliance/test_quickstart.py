"""The quickstart's examples are read by what will read them: a page that drifted from the code fails here."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.config import parse
from appliance.cli.image import check
from appliance.cli.main import full_parser
from appliance.cli.spec import upload_spec, without_secrets

PAGE = Path(__file__).parents[3] / "docs/quickstart.md"
BLOCKS = [
    tomllib.loads(text)
    for text in re.findall(
        r"^```toml\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
]
COMMANDS = re.findall(
    r"^\(?(?:umask 077; )?(imageport .*?)(?:  +#.*)?$", PAGE.read_text("utf-8"), re.MULTILINE
)
AGENTS = [block for block in BLOCKS if "state_dir" in block]
JOBS = [block for block in BLOCKS if "appliance" in block]
TARGETS = [block for block in BLOCKS if block.keys() == {"target"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("smb.secret", "azure.secret"):
        (tmp_path / name).write_text("hunter2\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def kinds(plain: dict[str, Any]) -> str:
    return f"{plain['source']['kind']}-to-{plain['target']['kind']}"


def test_every_block_is_one_that_is_tested_here() -> None:
    assert len(AGENTS) == 1
    assert len(AGENTS) + len(JOBS) + len(TARGETS) == len(BLOCKS)


def test_both_first_jobs_are_shown() -> None:
    assert {kinds(job) for job in JOBS} == {"smb-to-azure-disk", "local-to-local"}


def test_the_agents_file_is_a_configuration() -> None:
    parse(AGENTS[0])


@pytest.mark.parametrize(
    "plain",
    [*JOBS, *({**JOBS[0], **target} for target in TARGETS)],
    ids=kinds,
)
def test_every_job_fits_the_op_and_shows_no_secret(plain: dict[str, Any], folder: Path) -> None:
    spec = upload_spec(plain, folder=folder)
    check(spec)
    assert "hunter2" not in str(without_secrets(spec))


def test_the_local_job_names_folders_that_the_agents_file_has() -> None:
    local = next(job for job in JOBS if kinds(job) == "local-to-local")
    assert local["source"]["name"] in AGENTS[0]["shares"]["local"]
    assert local["target"]["name"] in AGENTS[0]["targets"]["local"]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_that_the_parser_takes(line: str) -> None:
    words = shlex.split(line, comments=True)
    ends = [number for number, word in enumerate(words) if word[0] in "|<>"]
    full_parser().parse_args(words[1 : ends[0] if ends else None])


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 15


def test_each_terminal_has_one_number_and_the_page_counts_them() -> None:
    text = PAGE.read_text("utf-8")
    numbers = re.findall(r"# terminal (\d)$", text, re.MULTILINE)
    assert sorted([*numbers, "4"]) == ["1", "2", "3", "4", "5"]
    assert "in five terminals" in text
