"""Compare what we read of mildly damaged images with what others read: `python -m tests.fuzz.differential --cases 500`.

A case counts where two other readers agree on a disk and we read another one. That is a question to the
specification and not an answer: `imaging/FORMATS.md` ("Where readers disagree") lists what was decided. Judges nothing.
"""

import argparse
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable  # noqa: TC003  (with `Counter` of the same package)
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pyvhdi
from dissect.hypervisor.disk.qcow2 import QCow2
from dissect.hypervisor.disk.vhd import VHD
from dissect.hypervisor.disk.vhdx import VHDX
from dissect.hypervisor.disk.vmdk import VMDK

from tests.fuzz.cases import Case, count, make_case
from tests.fuzz.pages import PAGE
from tests.fuzz.seeds import all_seeds
from tests.fuzz.test_meaning import read_disk
from tests.support.disks import GiB, MiB, write_sparse

_DECIDED = ("vhd-chain", "vhdx-log", "vhdx-wrapped", "vhdx-real-vhdx-log-replay")
"""Seeds that others read otherwise unmutated: rows `vhd-differencing` and `vhdx-log` of FORMATS.md."""
_MOST = 4 * MiB
_TIMEOUT = 20


def others(image: Path, form: str) -> dict[str, bytes]:
    """Return the disk by each other reader that reads it."""
    readers: dict[str, Callable[[Path, str], bytes]] = {"qemu": _qemu, "dissect": _dissect}
    if form in ("vhd", "vhdx"):
        readers["libvhdi"] = _libvhdi
    found = {}
    for name, read in readers.items():
        signal.alarm(_TIMEOUT)
        with suppress(Exception):  # whatever another's parser raises
            found[name] = read(image, form)
        signal.alarm(0)
    return found


def _qemu(image: Path, form: str) -> bytes:
    target = image.parent / "by-qemu"
    name = {"vhd": "vpc"}.get(form, form)
    command = ["qemu-img", "convert", "-f", name, "-O", "raw", image.name, target.name]
    subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT, cwd=image.parent)
    with target.open("rb") as file:
        content = file.read(_MOST)
    target.unlink()
    return content


def _dissect(image: Path, form: str) -> bytes:
    with ExitStack() as files:
        if form == "vmdk":
            disk = VMDK(image)
            for extent in disk.disks:
                files.enter_context(extent.fh)
        else:
            file = files.enter_context(image.open("rb"))
            disk = {"vhd": VHD, "vhdx": VHDX, "qcow2": QCow2}[form](file)
        stream = disk.open() if hasattr(disk, "open") else disk
        return bytes(stream.read(min(disk.size, _MOST)))


def _libvhdi(image: Path, _form: str) -> bytes:
    with closing(pyvhdi.file()) as file:
        file.open(str(image))
        return bytes(file.read_buffer_at_offset(min(file.get_media_size(), _MOST), 0))


def verdict(case: Case) -> str:
    """Return who agrees."""
    if any(file.size > GiB for file in case.files.values()):
        return "too large"
    ours = read_disk(case)
    if ours is None:
        return "we refuse"
    with tempfile.TemporaryDirectory() as name:
        for each, file in case.files.items():
            parts = {n * PAGE: page for n, page in file.pages.items()}
            path = write_sparse(Path(name) / each, file.size, parts)
            with path.open("r+b") as written:
                written.truncate(file.size)
        theirs = others(Path(name) / case.top, case.form)
    if not theirs:
        return "only we read it"
    agree = sorted(name for name, disk in theirs.items() if disk == ours[0])
    differ = {name: disk for name, disk in theirs.items() if disk != ours[0]}
    if not differ:
        return "all agree"
    if len(differ) >= 2 and len(set(differ.values())) == 1:
        return f"DIFFERS: {' and '.join(sorted(differ))} agree on another disk"
    return f"one differs: {', '.join(sorted(differ))}{' (others agree)' if agree else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--start", type=int, default=0)
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (3 * GiB, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _give_up)
    verdicts = {form: Counter[str]() for form in ("vhd", "vhdx", "vmdk", "qcow2")}
    for name in _names(chosen.start, chosen.cases):
        case = make_case(name)
        found = verdict(case)
        verdicts[case.form][found] += 1
        if found.startswith("DIFFERS"):
            print(f"{name}: {found}", flush=True)  # noqa: T201
    for form, counter in verdicts.items():
        print(form, dict(counter.most_common()))  # noqa: T201
    return 0


def _give_up(*_: object) -> None:
    raise TimeoutError


def _names(start: int, cases: int) -> list[str]:
    """Sound seeds first, then single lies."""
    forms = ("vhd", "vhdx", "vmdk", "qcow2")
    chosen = [s for s in all_seeds().values() if s.form in forms and s.name not in _DECIDED]
    names = [seed.name for seed in chosen] if start == 0 else []
    rng = random.Random(start)
    while len(names) < cases:
        seed, kind = rng.choice(chosen), rng.choice(("cut", "flip", "flip", "field"))
        number = rng.randrange(count(seed, kind))
        names.append(f"{seed.name}:{kind}:{number}")
    return names


if __name__ == "__main__":
    sys.exit(main())
