"""Where the demo's image lies: a private Samba server, or a folder where Samba cannot be had (and it says so)."""

import lzma
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from appliance.sim.samba import Samba, SambaShare, why_unavailable

IMAGE = "golden.vhdx"
SHARE = "images"


@dataclass(frozen=True, slots=True)
class Place:
    """The source of the demo's job.

    Attributes:
        source: The `source` of an upload's args, credential in clear for the client to seal.
        told: How the demo calls it.
    """

    source: dict[str, Any]
    told: str


def unpack_image(folder: Path) -> Path:
    """Write the demo's image, sparse, and return its path."""
    packed = files("appliance.demo").joinpath("golden.vhdx.xz").read_bytes()
    path = folder / IMAGE
    content, step = lzma.decompress(packed), 1024 * 1024
    with path.open("wb") as file:
        file.truncate(len(content))
        for offset in range(0, len(content), step):
            piece = content[offset : offset + step]
            if any(piece):
                file.seek(offset)
                file.write(piece)
    return path


@contextmanager
def make_place(work: Path, folder: Path) -> Iterator[Place]:
    """Offer `folder` as a share while the block runs."""
    with ExitStack() as stack:
        reason = why_unavailable()
        place = Place(
            {"kind": "local", "name": "images"}, f"the folder {folder} (no Samba: {reason})"
        )
        if reason is None:
            place = stack.enter_context(_samba(work, folder))
        yield place


@contextmanager
def _samba(work: Path, folder: Path) -> Iterator[Place]:
    share = SambaShare(SHARE, folder, {"force user": "root"})
    with Samba(work / "samba", [share]) as server:
        user = server.user
        source = {
            "kind": "smb",
            "server": "127.0.0.1",
            "port": server.port,
            "share": SHARE,
            "credential": {"username": user.name, "password": user.password},
        }
        yield Place(source, rf"\\127.0.0.1\{SHARE} (real Samba, port {server.port})")
