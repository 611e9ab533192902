"""The signer's command line against a real signer process: tokens, callers, key manifests, and what stops a start."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.keyfiles import read
from protocol.enrol import parse_token, root_fingerprint
from tests.support.signer_device import TENANT
from tests.support.signer_relay_double import SignerProcess, signer_process

pytestmark = pytest.mark.e2e

NOBODY = 65534
NO_RELAY = 9
"""The discard port: nobody listens, and the signer works all the same."""


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[SignerProcess]:
    with signer_process(tmp_path / "signer", NO_RELAY) as signer:
        yield signer


def _run(signer: SignerProcess, *words: str) -> int:
    return main([*words, "--config", str(signer.folder / "signer.toml")])


def test_a_token_is_printed_alone_and_pins_the_root(
    signer: SignerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(signer, "token", "new", "--tenant", TENANT, "--ttl", "30m") == 0
    token = parse_token(capsys.readouterr().out)
    root = read(signer.keys / "root.pub").public
    assert token.root_fingerprint == root_fingerprint(root)
    assert _run(signer, "token", "new", "--tenant", TENANT, "--ttl", "900d", "--json") == 1
    assert json.loads(capsys.readouterr().out)["fields"]["signer_code"] == "signer.bad-request"


def test_callers_and_status_are_shown(
    signer: SignerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    public = str(signer.keys / "caller.pub")
    assert _run(signer, "signer", "caller", "add", public, "--tenant", TENANT, "--json") == 0
    added = json.loads(capsys.readouterr().out)
    assert _run(signer, "signer", "caller", "list") == 0
    assert added["id"] in capsys.readouterr().out
    assert _run(signer, "signer", "caller", "revoke", added["id"]) == 0
    assert (
        _run(signer, "signer", "caller", "add", str(signer.keys / "vault.pub"), "--tenant", "a")
        == 65
    )
    assert _run(signer, "signer", "status") == 0
    assert _run(signer, "signer", "appliances") == 0
    assert _run(signer, "signer", "revoke", "nobody") == 1


def test_a_newer_key_manifest_counts_also_after_a_restart(
    signer: SignerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = tmp_path / "manifest-2"
    keys = [
        part
        for role in ("command", "time", "record")
        for part in ("--key", f"{role}:{signer.keys / 'signer' / f'{role}.key'}")
    ]
    root = str(signer.folder / "offline-root.key")
    made = main(["key", "manifest", "--root", root, *keys, "--serial", "2", "-o", str(newer)])
    assert made == 0
    capsys.readouterr()
    assert _run(signer, "signer", "manifest", str(newer)) == 0
    said = capsys.readouterr().out
    assert said.startswith("key manifest 2 is in force; ")
    assert "re-based orders: 0, with something signed again: 0" in said
    assert _run(signer, "signer", "manifest", str(newer), "--json") == 0  # the same again
    told = json.loads(capsys.readouterr().out)
    assert (told["serial"], told["raised"], told["signed_again"]) == (2, [], [])
    assert _run(signer, "signer", "manifest", str(signer.keys / "manifest")) == 1  # serial 1
    signer.kill()
    signer.start()
    capsys.readouterr()
    assert _run(signer, "signer", "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["manifest"] == 2


def _start(signer: SignerProcess) -> "subprocess.CompletedProcess[str]":
    code = "import sys; from appliance.cli.main import main; sys.exit(main())"
    config = str(signer.folder / "signer.toml")
    return subprocess.run(
        [sys.executable, "-c", code, "signer", "serve", "--config", config],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_second_signer_on_one_database_does_not_start(signer: SignerProcess) -> None:
    second = _start(signer)
    assert second.returncode == 78
    assert "another signer holds" in second.stderr
    assert signer.ask("GET", "/v1/status")


def test_it_does_not_start_beside_a_root_key(signer: SignerProcess) -> None:
    assert signer.stop() == 0
    shutil.copy(signer.folder / "offline-root.key", signer.keys / "signer" / "spare.key")
    refused = _start(signer)
    assert refused.returncode == 78
    assert "signer.root-key-online" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_user_does_not_govern_the_signer(signer: SignerProcess) -> None:
    # Even with the files' modes opened by mistake, the kernel's word about the peer decides.
    signer.socket.parent.chmod(0o711)
    signer.socket.chmod(0o666)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:  # only system calls from here: this is a copy of the test's process
        try:
            os.chdir(signer.socket.parent)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(signer.socket.name)
                peer.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                os.write(send, peer.recv(64))
        finally:
            os._exit(0)
    os.close(send)
    os.waitpid(child, 0)
    with os.fdopen(receive, "rb") as answer:
        assert answer.read().startswith(b"HTTP/1.1 403 ")
