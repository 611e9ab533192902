"""What people hand over by name: one meaning of each exit code, whatever the command and whatever lies there."""

import argparse
import io
import json
import sys
from pathlib import Path

import pytest

from appliance.cli.inputs import MAX_BYTES, NotText, TooLong, number, read_bytes, read_text
from appliance.cli.main import main
from appliance.controlplane import create_control_plane

SPEC = """
appliance = "site-1"
path = "a.raw"
[source]
kind = "smb"
server = "nas"
share = "images"
[source.credential]
username = "svc"
password_file = "FILE"
[target]
kind = "local"
name = "cloud"
disk = "d"
"""


@pytest.fixture
def plane(tmp_path: Path) -> Path:
    create_control_plane(tmp_path / "cp", tenant="acme", now_ms=1_800_000_000_000)
    return tmp_path / "cp"


INPUTS = {
    "spec": ["image", "upload", "--plan", "--spec", "FILE"],
    "secret of a spec": ["image", "upload", "--plan", "--spec", "SPEC"],
    "token": ["appliance", "enroll", "--relay", "http://127.0.0.1:9", "--token-file", "FILE"],
    "caller": ["signer", "caller", "add", "FILE", "--tenant", "acme"],
    "manifest to show": ["key", "manifest", "--show", "FILE", "--root", "CP/root.pub"],
    "root to show": ["key", "manifest", "--show", "CP/manifest", "--root", "FILE"],
    "root": ["key", "manifest", "--root", "FILE", "--key", "time:CP/signer/time.key", "--serial", "2", "-o", "NEW"],
    "key": ["key", "manifest", "--root", "CP/root.key", "--key", "time:FILE", "--serial", "2", "-o", "NEW"],
    "image": ["disk", "info", "FILE"],
    "credential": ["doctor", "share", "--share", "smb://nas/images", "--credential-file", "FILE"],
    "faults": ["sim", "azure", "--faults", "FILE"],
    "certificate": ["sim", "azure", "--tls-cert", "FILE", "--tls-key", "FILE"],
}  # fmt: skip
# A fault plan is configuration, and anything may be a raw image.
OF_A_KIND = {key: words for key, words in INPUTS.items() if words[0] not in {"sim", "disk"}}
CONFIGURATION = {
    "client": ["job", "list", "--client", "FILE"],
    "agent": ["config", "check", "--config", "FILE"],
    "enrolment": ["appliance", "enroll", "--relay", "http://x", "--token-file", "CP/x", "--config", "FILE"],
    "status": ["status", "--config", "FILE"],
    "relay": ["relay", "serve", "--config", "FILE"],
    "signer": ["signer", "serve", "--config", "FILE"],
    "signer's socket": ["token", "new", "--config", "FILE"],
}  # fmt: skip


def run(words: list[str], file: Path, plane: Path) -> int:
    spec = plane / "spec.toml"
    spec.write_text(SPEC.replace("FILE", str(file)))
    places = {"FILE": file, "CP": plane, "SPEC": spec, "NEW": plane / "new"}
    for name, place in places.items():
        words = [word.replace(name, str(place)) if name in word else word for word in words]
    return main([*words])


def explained(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    told = capsys.readouterr()
    assert told.out == ""
    assert "  code: " in told.err
    assert "  fix: " in told.err
    assert file.name in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize("words", INPUTS.values(), ids=INPUTS)
def test_an_input_that_is_not_there_is_66(
    words: list[str], plane: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = plane / "gone"
    assert run(words, gone, plane) == 66
    explained(capsys, gone)


@pytest.mark.parametrize("words", INPUTS.values(), ids=INPUTS)
def test_a_folder_in_the_place_of_an_input_is_66(
    words: list[str], plane: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plane / "folder"
    folder.mkdir()
    assert run(words, folder, plane) == 66
    explained(capsys, folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe nonsense"], ids=["empty", "no text"])
@pytest.mark.parametrize("words", OF_A_KIND.values(), ids=OF_A_KIND)
def test_an_input_of_another_kind_is_65(
    words: list[str], content: bytes, plane: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plane / "other"
    file.write_bytes(content)
    file.chmod(0o600)
    assert run(words, file, plane) == 65
    explained(capsys, file)


@pytest.mark.parametrize("words", CONFIGURATION.values(), ids=CONFIGURATION)
@pytest.mark.parametrize("made", ["gone", "folder", "broken"])
def test_a_configuration_that_cannot_be_used_is_78(
    words: list[str], made: str, plane: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plane / "folder").mkdir()
    (plane / "broken").write_bytes(b"\xff =")
    assert run(words, plane / made, plane) == 78
    explained(capsys, plane / made)


@pytest.mark.parametrize(
    "key", ["api_key_file", "caller_key_file", "vault_key_file", "root_file", "ca_file"]
)
@pytest.mark.parametrize("made", ["gone", "folder", "broken"])
def test_a_file_that_the_clients_configuration_names_is_78(
    key: str, made: str, plane: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plane / "folder").mkdir()
    (plane / "broken").write_bytes(b"\xff =")
    (plane / "broken").chmod(0o600)
    client = plane / "client.toml"
    kept = [line for line in client.read_text().splitlines() if not line.startswith(f"{key} =")]
    client.write_text("\n".join([*kept, f'{key} = "{made}"']))
    assert main(["job", "list", "--client", str(client)]) == 78
    explained(capsys, plane / made)


@pytest.mark.parametrize(
    "words",
    [
        "token new --tenant A",
        "token new --uses 0",
        "token new --uses x",
        "token new --replaces a/b",
        "token new --ttl 0h",
        "signer revoke ../callers",
        "signer caller add x.pub --tenant *",
        "signer caller revoke a/b",
        "job list --limit 0",
        "job list --state done",
        "job list --appliance A",
        "key new caller -o x --tenant a.b",
        "key new api",
        "key new api --name a.b --tenant acme",
        "key new control-plane --dir x",
        "key manifest --root x --key time:x -o x --serial 0",
        "key manifest --root x --key time:x -o x --serial 2 --days -1",
        "key manifest --root x --key time:x -o x --serial 2 --days 99999",
        "key manifest --root x --key time:x -o x --serial 2 --floor -5",
        "sim azure --lro-seconds nan",
        "sim azure --lro-seconds -1",
        "sim azure --retry-after x",
        "doctor --timeout nan",
        "doctor --timeout 0",
        "appliance enroll --relay http://x --token-file x --name Site_1",
    ],
)
def test_what_no_command_takes_is_2(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert capsys.readouterr().out == ""


def test_a_state_folder_that_cannot_be_made_is_73(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "token").write_text(f"t-1.{'A' * 43}.{'a' * 52}")
    words = f"appliance enroll --relay http://127.0.0.1:9 --token-file {tmp_path / 'token'}"
    assert main([*words.split(), "--state-dir", str(tmp_path / "file")]) == 73
    explained(capsys, tmp_path / "file")


def test_the_error_names_the_file_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = str(tmp_path / "gone.toml")
    assert main(["image", "upload", "--spec", gone, "--json"]) == 66
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["code"]) == ("error/1", "cli.no-input")
    assert told["fields"] == {"path": gone}


def test_standard_input_is_read_as_strictly_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"pass\xff"), encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(NotText):
        read_text(Path("-"), "the secret file")


def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(TooLong):
        read_bytes(Path("/dev/zero"), "the spec")


def test_a_spec_that_is_too_long_is_refused_not_cut(
    plane: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = plane / "long.toml"
    text = SPEC.replace("password_file", "# password_file")
    spec.write_text(text + "#" * (MAX_BYTES - len(text)))
    assert len(read_bytes(spec, "the spec")) == MAX_BYTES
    with spec.open("a") as file:
        file.write('\n[options]\nif_exists = "replace"\n')
    assert main(["image", "upload", "--plan", "--spec", str(spec)]) == 65
    explained(capsys, spec)


@pytest.mark.parametrize("text", ["1", "007", "1000000000"])
def test_a_number_is_read(text: str) -> None:
    assert number(1, 10**9)(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.0", "\u0661", "1000000001", "0" * 19 + "1" + "9" * 40, "0" * 5000]
)
def test_what_is_no_such_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        number(1, 10**9)(text)
