"""The configuration: order of files, origin of values, and no mistake passes for a default."""

from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig, ConfigError, load, parse


def _write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_need_no_file(tmp_path: Path) -> None:
    loaded = load(folders=(tmp_path / "none",))
    assert loaded.config == AgentConfig()
    assert {origin for _, _, origin in loaded.rows()} == {"default"}


def test_later_files_win_key_by_key_and_each_value_knows_its_file(tmp_path: Path) -> None:
    vendor, site = tmp_path / "lib", tmp_path / "etc"
    _write(vendor, "90-vendor.toml", "[relay]\nurl = 'https://vendor'\nheartbeat_s = 10.0\n")
    first = _write(site, "10-a.toml", "[relay]\nurl = 'https://a'\n[limits]\nslots = 3\n")
    second = _write(site, "20-b.toml", "[relay]\nurl = 'https://b'\n")
    loaded = load(folders=(vendor, site))
    assert loaded.config.relay.url == "https://b"
    assert loaded.config.relay.heartbeat_s == 10.0
    origins = {key: origin for key, _, origin in loaded.rows()}
    assert origins["relay.url"] == str(second)
    assert origins["limits.slots"] == str(first)
    assert origins["accept_unproven"] == "default"


def test_one_named_file_is_read_alone(tmp_path: Path) -> None:
    _write(tmp_path, "10-a.toml", "accept_unproven = true\n")
    other = _write(tmp_path, "other.toml", "log_level = 'debug'\n")
    config = load(other, folders=(tmp_path,)).config
    assert (config.log_level, config.accept_unproven) == ("debug", False)


@pytest.mark.parametrize(
    "text",
    [
        "[relay]\nurll = 'https://x'\n",
        "unknown = 1\n",
        "state_dir = 'relative'\n",
        "[limits]\nslots = 0\n",
        "[limits]\nslots = '2'\n",
        "[relay]\nurl = 'ftp://x'\n",
        "[relay]\nproxy = 'http://user:password@proxy:3128'\n",
        "not toml",
    ],
    ids=["typo", "unknown", "relative", "zero", "text", "scheme", "password-in-url", "syntax"],
)
def test_a_mistake_is_an_error_that_names_its_file(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, "10-a.toml", text)
    with pytest.raises(ConfigError) as caught:
        load(folders=(tmp_path,))
    assert str(path) in str(caught.value)
    assert "user:password" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"targets": {"ca_file": "/x"}}, "in [targets]; it belongs in [relay] or in [uploads]"),
        ({"slots": 2}, "before the first section; it belongs in [limits]"),
        ({"relay": {"urll": "https://x"}}, "in [relay]; did you mean url?"),
        ({"relays": {}}, "before the first section; did you mean relay?"),
        (
            {"limits": {"qqq": 1}},
            "in [limits]; known: slots, bandwidth, windows, clean_up_s, drain_s",
        ),
        ({"shares": {"smb": {"fs01": {"sign": "on"}}}}, "`$.shares.smb[...]`"),
    ],
    ids=["section", "top", "typo", "section-typo", "nothing-near", "deep"],
)
def test_an_unknown_key_is_told_where_it_belongs(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(values)
    assert told in str(caught.value)


def test_folders_are_named_by_the_site(tmp_path: Path) -> None:
    config = parse({"shares": {"local": {"images": str(tmp_path)}}})
    assert config.shares.local == {"images": str(tmp_path)}


def test_the_control_socket_is_in_the_state_folder_unless_named() -> None:
    assert parse({"state_dir": "/s"}).control_path == "/s/control.sock"
    assert parse({"control_socket": "@abstract"}).control_path == "@abstract"
