import argparse
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.cli.signersocket import DEFAULT_SOCKET, SignerConfigError, socket_of
from appliance.cli.token import duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800)]
)
def test_durations_are_read_as_they_are_spoken(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "0h", "-1h", "1.5h", "1w", "h", "24h ", "999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


def _socket(config: Path | None, socket: Path | None = None) -> Path:
    return socket_of(argparse.Namespace(config=config, socket=socket))


def test_the_socket_is_the_named_one_the_configured_one_or_the_usual_one(tmp_path: Path) -> None:
    config = tmp_path / "signer.toml"
    config.write_text('socket = "run/s"\n')
    assert _socket(config, Path("x")) == Path("x")
    assert _socket(config) == tmp_path / "run" / "s"
    assert _socket(None) == DEFAULT_SOCKET
    config.write_text("")
    assert _socket(config) == DEFAULT_SOCKET


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SignerConfigError, match=r"none\.toml"):
        _socket(tmp_path / "none.toml")


def test_without_a_signer_the_command_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "new", "--socket", str(tmp_path / "none")]) == 69
    shown = capsys.readouterr()
    assert "cli.signer-unreachable" in shown.err
    assert "signer serve" in shown.err
    assert shown.out == ""
