import hashlib
import json
import stat
import tomllib
from pathlib import Path

import pytest

from appliance import keyfiles
from appliance.cli.main import main
from protocol.enrol import root_fingerprint
from protocol.keys import KeyRing


def _new(folder: Path, role: str) -> Path:
    path = folder / f"{role}.key"
    assert main(["key", "new", role, "-o", str(path), "--tenant", "acme"]) == 0
    return path


def _manifest(folder: Path, serial: int, *extra: str) -> int:
    return main(
        [
            *("key", "manifest", "--root", str(folder / "root.key")),
            *("--key", f"command:{folder / 'command.key'}", "--key", f"time:{folder / 'time.pub'}"),
            *("--serial", str(serial), "-o", str(folder / f"manifest-{serial}"), *extra),
        ]
    )


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for role in ("root", "command", "time"):
        _new(tmp_path, role)
    return tmp_path


def test_new_writes_both_halves_and_prints_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = keyfiles.read(_new(tmp_path, "root"))
    shown = capsys.readouterr()
    assert keyfiles.read(tmp_path / "root.pub") == key.public_half()
    assert root_fingerprint(key.public) in shown.out
    assert "offline" in shown.err
    assert key.private is not None
    assert key.private.hex() not in shown.out + shown.err


def test_new_does_not_overwrite(tmp_path: Path) -> None:
    before = _new(tmp_path, "command").read_bytes()
    assert main(["key", "new", "command", "-o", str(tmp_path / "command.key")]) == 73
    assert (tmp_path / "command.key").read_bytes() == before


def test_manifest_is_accepted_under_its_root_and_lists_public_halves(keys: Path) -> None:
    assert _manifest(keys, 1) == 0
    root = keyfiles.read(keys / "root.pub")
    data = (keys / "manifest-1").read_bytes()
    manifest = KeyRing.open(data, root=root.public).manifest
    assert [(key.role, key.tenants) for key in manifest.keys] == [
        ("command", ("acme",)),
        ("time", ("acme",)),
    ]
    private = keyfiles.read(keys / "command.key").private
    assert private is not None
    assert private not in data


def test_a_new_manifest_is_answered_as_json_too(
    keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert _manifest(keys, 3, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["serial"], len(shown["keys"])) == ("key-manifest/1", 3, 2)


def test_manifest_shows_a_revoked_key(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = keyfiles.read(keys / "command.key").id
    assert _manifest(keys, 2, "--revoke", f"{name}:stop") == 0
    capsys.readouterr()
    show = ["key", "manifest", "--show", str(keys / "manifest-2"), "--json"]
    assert main([*show, "--root", str(keys / "root.pub")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["serial"]) == ("key-manifest/1", 2)
    assert [key["revoked"] for key in shown["keys"]] == ["stop", None]


def test_show_refuses_a_manifest_of_another_root(keys: Path) -> None:
    assert _manifest(keys, 1) == 0
    other = keyfiles.generate("root", tenant="*")
    keyfiles.create(keys / "other.pub", other.public_half())
    show = ["key", "manifest", "--show", str(keys / "manifest-1")]
    assert main([*show, "--root", str(keys / "other.pub")]) == 77


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (["--revoke", "command-00000000:stop"], 65),
        (["--revoke", "command-00000000"], 2),
        (["--key", "release:nowhere.key"], 66),
        (["--key", "device:nowhere.key"], 2),
    ],
    ids=["revoked-unlisted", "revoked-how", "no-file", "no-role"],
)
def test_manifest_that_would_mislead_is_not_signed(keys: Path, extra: list[str], code: int) -> None:
    assert _manifest(keys, 1, *extra) == code
    assert not (keys / "manifest-1").exists()


@pytest.mark.parametrize("which", ["--root", "--next-root"])
def test_only_a_root_key_signs_or_follows(keys: Path, which: str) -> None:
    other = str(keys / ("command.key" if which == "--root" else "command.pub"))
    assert _manifest(keys, 1, which, other) == 65
    assert not (keys / "manifest-1").exists()


def test_a_caller_key_is_not_listed_in_a_manifest(keys: Path) -> None:
    caller = _new(keys, "caller")
    assert _manifest(keys, 1, "--key", f"command:{caller}") == 65


def test_api_key_goes_to_the_relay_as_its_hash_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    command = ["key", "new", "api", "--role", "control", "--tenant", "acme", "-o", str(path)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    secret = path.read_text().strip()
    (block,) = tomllib.loads(shown)["api_keys"]
    assert (block["tenant"], block["role"]) == ("acme", "control")
    assert block["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in shown
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_api_key_without_a_file_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "new", "api", "--tenant", "acme"]) == 0
    secret, _, block = capsys.readouterr().out.partition("\n")
    assert (
        tomllib.loads(block)["api_keys"][0]["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    )


def test_control_plane_is_complete_and_says_that_root_goes_offline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cp"
    assert main(["key", "new", "control-plane", "--dir", str(folder), "--tenant", "acme"]) == 0
    root = keyfiles.read(folder / "root.pub")
    manifest = KeyRing.open((folder / "manifest").read_bytes(), root=root.public).manifest
    held = [keyfiles.read(path) for path in sorted((folder / "signer").iterdir())]
    assert {key.role for key in held} == {"command", "time", "record", "vault"}
    assert {key.pub for key in manifest.keys} == {k.public for k in held if k.role != "vault"}
    assert "MOVE" in capsys.readouterr().err
    open_to_others = [p for p in folder.rglob("*.key") if stat.S_IMODE(p.stat().st_mode) != 0o600]
    assert open_to_others == []


def test_control_plane_is_not_made_twice_in_one_folder(tmp_path: Path) -> None:
    command = ["key", "new", "control-plane", "--dir", str(tmp_path), "--tenant", "acme"]
    assert main(command) == 0
    before = (tmp_path / "root.key").read_bytes()
    assert main(command) == 73
    assert (tmp_path / "root.key").read_bytes() == before
