"""Azurite, Microsoft's own emulator of the Blob service, in a process of its own, as a judge of what was uploaded."""

import os
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_LISTENING = re.compile(r"listens on (http://\S+)")
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running emulator: `blob_url` ends with the account's name."""

    blob_url: str
    account: str
    key: str


@contextmanager
def running_azurite(location: Path) -> Iterator[Azurite]:
    """Run Azurite's Blob service on a free port while the block runs; skips by name where it is not installed."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed (make setup)")
    account, key = "imageporttest", b64encode(bytes(range(64))).decode()
    options = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(location)]
    options += ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    process = subprocess.Popen(
        [program, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"AZURITE_ACCOUNTS": f"{account}:{key}"},
    )
    try:
        yield Azurite(f"{_address(process)}/{account}", account, key)
    finally:
        process.terminate()
        process.communicate(timeout=STOP_SECONDS)


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        found = _LISTENING.search(line)
        if found:
            return found[1].rstrip("/")
    pytest.fail(f"azurite-blob ended before it listened: {''.join(said)}")
