"""The command itself: the table, lazy imports, exit codes, and how errors are explained."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.cli import main as main_module
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.main import COMMANDS, Command, main


def install(monkeypatch: pytest.MonkeyPatch, run) -> None:
    """Put a command `x` in the table that does what `run` does."""

    def add_arguments(parser) -> None:
        parser.add_argument("--json", action="store_true")

    module = SimpleNamespace(add_arguments=add_arguments, run=run)
    monkeypatch.setattr(main_module, "COMMANDS", (Command("x", "tests.no.such", "test"),))
    monkeypatch.setattr(main_module.importlib, "import_module", lambda _name: module)


def fail_with(err: BaseException):
    def run(_args) -> int:
        raise err

    return run


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_its_module_and_one_line_of_help(command: Command) -> None:
    assert importlib.util.find_spec(command.module) is not None
    assert command.help
    assert "\n" not in command.help


def test_names_are_unique() -> None:
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)


def test_help_lists_every_command_and_loads_none() -> None:
    code = (
        "import sys; from appliance.cli.main import main; main(['--help']);"
        "heavy = [n for n in sys.modules if n.startswith(('imaging.formats', 'asyncio', 'aiohttp',"
        " 'cryptography', 'msgspec'))]; sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(command.help in done.stdout for command in COMMANDS)


def test_version_is_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    out = capsys.readouterr()
    assert out.out.startswith("imageport ")
    assert out.err == ""


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["disk"], ["disk", "info"], ["--x"]])
def test_usage_errors_are_2_and_leave_stdout_alone(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert "usage: imageport" in out.err


@pytest.mark.parametrize("code", [0, 1])
def test_the_command_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    install(monkeypatch, lambda _args: code)
    assert main(["x"]) == code


class OursError(Exception):
    """An error as every package has them."""

    code = "test.broken"
    exit_code = 75
    fix = "Mend it."

    def __init__(self) -> None:
        super().__init__("the thing is broken")
        self.fields = {"offset": 512, "secret": object()}


def test_an_error_of_ours_is_explained_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, fail_with(OursError()))
    assert main(["x"]) == 75
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err == "imageport: the thing is broken\n  code: test.broken\n  fix: Mend it.\n"


def test_a_name_cannot_write_lines_or_colours_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, fail_with(BadUsage("no \x1b[31mred\x07")))
    assert main(["x"]) == 2
    assert capsys.readouterr().err.startswith("imageport: no \\x1b[31mred\\x07\n")


def test_with_json_the_error_is_the_answer_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, fail_with(OursError()))
    assert main(["x", "--json"]) == 75
    assert json.loads(capsys.readouterr().out) == {
        "schema": "error/1",
        "code": "test.broken",
        "message": "the thing is broken",
        "fix": "Mend it.",
        "exit_code": 75,
        "fields": {"offset": 512},
    }


def test_a_package_that_is_missing_late_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, fail_with(ModuleNotFoundError("gone", name="azure.storage")))
    assert main(["x"]) == Exit.UNAVAILABLE
    assert "imageport[azure]" in capsys.readouterr().err


def test_a_bug_is_70_and_says_where_the_traceback_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, fail_with(KeyError("lost")))
    assert main(["x"]) == 70
    err = capsys.readouterr().err
    assert "internal error: KeyError" in err
    assert "--debug" in err
    assert "Traceback" not in err
    for arguments in (["--debug", "x"], ["x", "--debug"]):
        assert main(arguments) == 70
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("err", "code"),
    [(KeyboardInterrupt(), 130), (BadUsage("a and b"), 2), (FileNotFoundError(2, "gone"), 74)],
    ids=["ctrl-c", "usage", "os-error"],
)
def test_other_ends(monkeypatch: pytest.MonkeyPatch, err: BaseException, code: int) -> None:
    install(monkeypatch, fail_with(err))
    assert main(["x"]) == code


def test_an_error_that_a_task_group_wrapped_is_explained_as_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, fail_with(ExceptionGroup("x", [ExceptionGroup("y", [OursError()])])))
    assert main(["x"]) == 75


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command("x", "tests.no_such_module", "test", extra="azure")
    monkeypatch.setattr(main_module, "COMMANDS", (command,))
    assert main(["x"]) == 69
    assert "imageport[azure]" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error() -> None:
    code = (
        "import os, sys; from appliance.cli.main import main\n"
        "read, write = os.pipe(); os.dup2(write, 1); os.close(read)\n"
        "sys.exit(main(['--version']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("redirect", "arguments", "code", "told"),
    [
        (">&-", "completion bash", Exit.STDOUT_CLOSED, ""),
        (">/dev/full", "completion bash", Exit.IO, "cli.io"),
        (">/dev/full", "disk info no-such-image --json", Exit.IO, "cli.io"),
    ],
)
def test_a_stdout_that_cannot_be_written_ends_without_a_traceback(
    redirect: str, arguments: str, code: int, told: str
) -> None:
    # Buffered, as at a terminal of ours: the failure shows at the flush, not at the print.
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m appliance.cli.main {arguments} {redirect}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_every_schema_is_on_the_page_of_them() -> None:
    package = Path(main_module.__file__).parent
    name = re.compile(r'"([a-z-]+/[0-9])"')
    said = {found for file in package.glob("*.py") for found in name.findall(file.read_text())}
    page = (package.parent / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`([a-z-]+/[0-9])`", page)) == said
