"""The real images of this repository, and those of a shared folder beside it: what they are and what must come out."""

import json
from pathlib import Path
from typing import Any

import pytest

from imaging.formats import FORMATS
from tests.support.disks import DATA_DIR, SHARED_DIR, unpack


def samples() -> list[Any]:
    """List them as parameters (path, entry of refs.json), in formats that are known."""
    found: dict[str, Any] = {}
    for folder in (DATA_DIR, SHARED_DIR):
        if not (folder / "refs.json").is_file():
            continue
        for ref in json.loads((folder / "refs.json").read_text(encoding="utf-8")):
            if ref["format"] in (*FORMATS, "qcow"):
                found.setdefault(ref["file"], (folder / ref["file"], ref))
    return [pytest.param(path, ref, id=name) for name, (path, ref) in sorted(found.items())]


def unpack_all(packed: Path, ref: dict[str, Any], folder: Path) -> Path:
    """Unpack a sample, and what belongs to it, into one folder; return the sample."""
    paths = {name: unpack(packed.with_name(name), folder) for name in ref["files"]}
    return paths[packed.name]
