"""What is imported late is there when it is asked for, and not before."""

import subprocess
import sys

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
