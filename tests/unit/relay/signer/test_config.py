from pathlib import Path
from typing import Any

import pytest

from relay.signer.config import load, merge, read_token
from relay.signer.errors import BadConfig

RELAY = {"url": "https://relay.example", "token_file": "relay.token"}


def _merge(*parts: dict[str, Any]) -> Any:
    return merge([(Path("/etc/imageport/signer.toml"), part) for part in parts])


def test_later_files_win_key_by_key() -> None:
    config = _merge({"relay": dict(RELAY), "valid_s": 60}, {"relay": {"ca": "ca.pem"}})
    assert (config.relay.url, config.valid_s) == (RELAY["url"], 60)
    assert config.relay.ca == "/etc/imageport/ca.pem"


def test_paths_count_from_their_file_and_absolute_ones_stay() -> None:
    config = _merge({"relay": dict(RELAY), "state_dir": "state", "socket": "/run/s.sock"})
    assert config.state_dir == "/etc/imageport/state"
    assert config.socket == "/run/s.sock"
    assert config.relay.token_file == "/etc/imageport/relay.token"


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"relay": RELAY, "surprise": 1},
        {"relay": {**RELAY, "url": "relay.example"}},
        {"relay": {**RELAY, "url": "https://user:secret@relay.example"}},
        {"relay": RELAY, "limits": {"backlog": 0}},
        {"relay": RELAY, "log_level": "loud"},
        {"relay": "https://relay.example"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=r"signer\.toml"):
        _merge({key: dict(v) if isinstance(v, dict) else v for key, v in part.items()})


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"none\.toml"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[relay")
    with pytest.raises(BadConfig, match=r"bad\.toml"):
        load(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("text", "mode"), [("tok", 0o644), ("", 0o600), ("two words", 0o600), ("x" * 600, 0o600)]
)
def test_a_token_file_that_others_read_or_that_holds_no_token_is_refused(
    tmp_path: Path, text: str, mode: int
) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(BadConfig):
        read_token(path)
    path.write_text("ipk-good\n")
    path.chmod(0o600)
    assert read_token(path) == "ipk-good"
