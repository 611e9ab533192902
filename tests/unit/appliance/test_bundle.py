"""The bundle: everything in the index, one failure stops nothing, and no planted secret comes out."""

import asyncio
import base64
import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from agent.journal.store import Journal
from appliance import bundle
from appliance.cli.main import main
from appliance.doctor.base import read_config
from tests.support import protocol_world as w
from tests.support.agent_relay_double import enrol

PASSWORD = 'pr0xy/pass "word"'
SAS = "c2lnbmF0dXJlLW9mLWEtc2FzLXVybA=="
TOKEN = "t-9." + base64.urlsafe_b64encode(b"Z" * 32).decode().rstrip("=") + "." + "q" * 52
PLAIN = "planted-pl4intext"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An enrolled appliance with a journal and secrets wherever somebody might leave them."""
    state = tmp_path / "state"
    enrol(state)
    credentials = tmp_path / "proxy.credentials"
    credentials.write_text(f"svc:{PASSWORD}\n")
    journal = Journal(state, reserve=0)

    async def begin() -> None:
        await journal.begin(w.record(), b"payload")

    asyncio.run(begin())
    journal.close()
    file = tmp_path / "agent.toml"
    file.write_text(
        f'# the password is {PLAIN}\nstate_dir = "{state}"\n[relay]\nurl = "http://127.0.0.1:1"\n'
        f'proxy = "http://127.0.0.1:1"\nproxy_credentials_file = "{credentials}"\n[policy]\nendpoints = []\n'
    )
    return file


def _log(folder: Path) -> Path:
    device = w.DEVICE.seed
    lines = [
        json.dumps({"event": "sending", "url": f"https://a/x?sig={SAS}", "password": PLAIN}),
        json.dumps({"event": f"proxy said no to {PASSWORD}"}),
        f"plain text with password={PLAIN} and {TOKEN}",
        f"key {device.hex()} {device!r} {base64.b64encode(device).decode()}",
        "-----BEGIN PRIVATE KEY-----",
        PLAIN,
        "-----END PRIVATE KEY-----",
        "the last harmless line",
    ]
    path = folder / "agent.log"
    path.write_text("\n".join(lines) + "\n")
    return path


def _texts(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_no_planted_secret_comes_out(tmp_path: Path, config: Path) -> None:
    out = tmp_path / "b.zip"
    assert (
        main(["bundle", "-o", str(out), "--config", str(config), "--log", str(_log(tmp_path))]) == 0
    )
    texts = _texts(out)
    device = w.DEVICE.seed
    secrets = [PASSWORD, json.dumps(PASSWORD)[1:-1], SAS, TOKEN.split(".")[1], PLAIN, device.hex()]
    secrets += [base64.b64encode(device).decode(), repr(device)[2:-1], w.SEAL.raw.hex()]
    found = [(name, s) for name, text in texts.items() for s in secrets if s in text]
    assert found == []
    assert "the last harmless line" in texts["logs/0-agent.log"]
    assert out.stat().st_mode & 0o777 == 0o600


def test_the_index_names_every_file_with_digest_and_size(tmp_path: Path, config: Path) -> None:
    out = tmp_path / "b.zip"
    main(["bundle", "-o", str(out), "--config", str(config)])
    texts = _texts(out)
    index = json.loads(texts.pop("index.json"))
    assert index["schema"] == "bundle-index/1"
    assert {row["name"] for row in index["files"]} == set(texts)
    for row in index["files"]:
        data = texts[row["name"]].encode()
        assert (row["size"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert json.loads(texts["doctor.json"])["schema"] == "doctor/1"
    assert json.loads(texts["journal.json"])["unfinished_jobs"] == 0
    assert json.loads(texts["jobs.json"]) == []


def test_what_cannot_be_had_is_named_and_stops_nothing(tmp_path: Path, config: Path) -> None:
    out = tmp_path / "b.zip"
    main(["bundle", "-o", str(out), "--config", str(config), "--log", str(tmp_path / "none.log")])
    texts = _texts(out)
    missing = {row["name"] for row in json.loads(texts["index.json"])["missing"]}
    assert missing == {"status.json", "logs/0-none.log"}  # no agent runs, no such file
    assert {"config.json", "doctor.json", "journal.json", "versions.json"} <= set(texts)


def test_a_configuration_that_cannot_be_read_leaves_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'passwrd = "{PLAIN}"\n')
    out = tmp_path / "b.zip"
    assert main(["bundle", "-o", str(out), "--config", str(file)]) == 0
    texts = _texts(out)
    assert {"doctor.json", "versions.json"} <= set(texts)
    assert "config.json" not in texts
    assert PLAIN not in "".join(texts.values())


def test_a_file_that_is_there_is_not_overwritten(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b.zip"
    out.write_bytes(b"precious")
    assert main(["bundle", "-o", str(out), "--config", str(config)]) == 73
    assert out.read_bytes() == b"precious"
    assert "bundle.not-written" in capsys.readouterr().err


async def test_only_the_end_of_a_long_log_is_taken(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "LOG_TAIL", 100)
    log = tmp_path / "long.log"
    log.write_text("".join(f"line {n:04}\n" for n in range(1000)))
    request = bundle.Request(read_config(config), (log,), lambda: 0.0)
    text = (await bundle.collect(request)).files["logs/0-long.log"].decode()
    assert text.splitlines()[-1] == "line 0999"
    assert all(len(line) == len("line 0000") for line in text.splitlines())
    assert len(text) <= 100
