"""What is imported late is there when it is asked for, and not before."""

import subprocess
import sys
from pathlib import Path

import pytest

from imaging.convert import TARGETS
from imaging.formats.registry import REGISTRY
from imaging.late import load


@pytest.mark.parametrize("name", REGISTRY)
def test_every_function_of_a_format_is_there(name: str) -> None:
    form = REGISTRY[name]
    for reference in filter(None, (form.opens, form.edits, form.checks)):
        assert callable(load(reference))


@pytest.mark.parametrize("name", TARGETS)
def test_every_sink_is_there(name: str) -> None:
    assert callable(load(f"imaging.convert.{TARGETS[name].sink}"))


def test_a_conversion_imports_only_what_it_needs(tmp_path: Path) -> None:
    """The command has to begin at once: qemu-img takes a hundredth of a second."""
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    command = ["disk", "convert", str(tmp_path / "a.raw"), str(tmp_path / "b.raw"), "--to", "raw"]
    code = (
        f"import sys; from appliance.cli.main import main; main({command!r}); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    late = ["imaging.convert.child", "imaging.convert.resume", "imaging.formats.vhdx.device"]
    others = [
        "msgspec",
        "protocol",
        "asyncio",
        "ssl",
        "structlog",
        "cryptography",
    ]
    assert not set(done.stdout.split()) & {*late, *others}


def test_importing_the_library_imports_no_format_and_no_sdk() -> None:
    code = "import sys, imaging.formats, imaging.convert.resume, imaging.digest.sidecar; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    formats = [f"imaging.formats.{name}" for name in REGISTRY]
    late = [
        *formats,
        *(f"imaging.convert.{one.sink.partition(':')[0]}" for one in TARGETS.values()),
    ]
    sdks = ["azure", "boto3", "google", "smbprotocol", "aiohttp", "asyncio", "deflate", "isal"]
    assert not set(done.stdout.split()) & {*late, *sdks}
