"""The one oracle: whatever the bytes are, the library works or raises ImagingError, within bounds. Makes no case.

Not allowed: another exception, a defect of ours passed on as an error (a range outside of a device, a closed one), work
or memory that the files do not warrant, a name that is no plain name, a file left open or written, extents with gaps,
bytes where an extent says zeros, a disk that opened and then cannot be read although its format is checked at open.
"""

import json
import random
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imaging.check import CheckReport
from imaging.convert import TARGETS, Options, convert
from imaging.device import read_bytes
from imaging.digest import digest_device
from imaging.errors import (
    DeviceClosed,
    DigestIncomplete,
    ImagingError,
    InvalidImage,
    OutOfRange,
    ReadOnlyDevice,
)
from imaging.extent import Extent
from imaging.formats import EDITABLE, DiskImage, check_image, edit_image, open_image, probe
from imaging.newfile import NewFile
from imaging.overlay import OverlayDevice
from tests.fuzz.cases import Case
from tests.fuzz.oracle_files import judge_files
from tests.fuzz.pages import PageDevice, Pages, Violation, WatchedFolder, Work
from tests.support.disks import GiB, KiB, MiB
from tests.support.sinks import OPTIONS

_OURS = (OutOfRange, DeviceClosed, ReadOnlyDevice, DigestIncomplete)
"""Errors that say "report this": no bytes of a file may lead to them."""
MOST_MEMORY = 256 * MiB
MAX_VIRTUAL_SIZE = 64 << 40
_LONGEST_TEXT = 2000
_SMALL_DISK = 4 * MiB
_EXTENTS = 20_000
"""Extents that are looked at in one case; more are only bounded by the file's size."""


@dataclass
class Outcome:
    """What became of one case.

    Attributes:
        codes: Every error code on the way; empty if all worked.
        opened: Whether the image opened.
        placeless: Messages of errors about bytes that do not say where.
        as_told: Whether it was opened as the format that it was made as, not as the one that it looks like.
        root: Of the disk, if it was read to the end.
    """

    opened: bool = False
    codes: Counter[str] = field(default_factory=Counter)
    placeless: list[str] = field(default_factory=list)
    as_told: bool = True
    root: str | None = None


def judge(case: Case, *, more: bool = True) -> Outcome:
    """Run a case.

    Args:
        case: The files.
        more: Also do what costs more: convert and edit, on some of the cases (by their names).

    Raises:
        Violation: With what was wrong; any other exception that is no ImagingError is one too.
    """
    outcome, chance = Outcome(), random.Random(case.name)
    before = {name: (content.size, content.pages.copy()) for name, content in case.files.items()}
    with bounded_memory():
        _probe(case, outcome)
        by_sight = outcome.codes.copy()
        _open_and_read(case, outcome, chance)
        _check(case, outcome)
        known = outcome.codes - by_sight
        if more and chance.random() < 0.15 and case.form in EDITABLE:
            _edit(case, outcome, chance)
    # What turned out damaged when samples were read need not be met when only opened.
    if more and chance.random() < 0.03 and outcome.as_told and not (outcome.opened and known):
        judge_files(case, codes=set(known), root=outcome.root)
    for name, content in case.files.items():
        if before[name] != (content.size, content.pages):
            raise Violation(f"{name} was changed")
    return outcome


@contextmanager
def bounded_memory():
    """Raise if the process's resident memory rises by more than MOST_MEMORY at any moment inside."""
    Path("/proc/self/clear_refs").write_text("5")
    start = _status("VmRSS")
    yield
    used = _status("VmHWM") - start
    if used > MOST_MEMORY:
        raise Violation(f"{used >> 20} MiB of memory, expected at most {MOST_MEMORY >> 20}")


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{key}:")[2].split()[0]) * KiB


class _Tools:
    """The devices of a case, and what its files warrant."""

    def __init__(self, case: Case) -> None:
        self.work = Work()
        self.folder = WatchedFolder(case.files, self.work)
        self.file = PageDevice(case.files[case.top], self.work)
        self.size = sum(content.size for content in case.files.values())
        self.stored = sum(content.stored for content in case.files.values())
        # Headers and tables are small beside the file; a chain reads the headers of each image twice.
        self._calls = 100 + self.size // 128
        self._bytes = 512 * KiB + 4 * min(self.size, 256 * MiB)
        self.work.most_calls, self.work.most_bytes = 20_000 + 8 * self._calls, 8 * self._bytes + GiB
        self._reset = (0, 0)

    def begin(self) -> None:
        self._reset = (self.work.calls + self.work.extents, self.work.bytes_read)

    def require_little_work(self, what: str, *, factor: int = 1, asked: int = 0) -> None:
        """Compare the work since the last time with what metadata warrant, and `asked` bytes of the disk."""
        calls, bytes_read = self.work.since(*self._reset)
        # Of a disk each sector may lie elsewhere; a compressed grain or cluster is read with its neighbours.
        most_calls = self._calls * factor + asked // 512
        most_bytes = self._bytes * factor + 64 * asked
        if calls > most_calls or bytes_read > most_bytes:
            raise Violation(
                f"{what} {self.size} bytes of files took {calls} calls for {bytes_read} bytes, expected at"
                f" most {most_calls} and {most_bytes}"
            )
        self.begin()


def _note(err: ImagingError, outcome: Outcome) -> None:
    """Look at an error itself."""
    if isinstance(err, _OURS):
        raise Violation(f"{type(err).__name__}: {err}") from err
    text = str(err)
    _require_readable(text)
    json.dumps(err.fields, default=str).encode()
    outcome.codes[err.code] += 1
    places = {"offset", "block", "path", "parent", "found", "file_size", "expected", "file"}
    if not places & {key for key, value in err.fields.items() if value is not None}:
        outcome.placeless.append(text[:200])


def _require_readable(text: str) -> None:
    """What an administrator reads is one line of his terminal, whatever the image's author put into it."""
    if not 0 < len(text) <= _LONGEST_TEXT:
        raise Violation(f"a message of {len(text)} characters: {text[:80]!r}")
    if not text.isprintable():
        raise Violation(f"a message that is not printable: {text[:400]!r}")


def _probe(case: Case, outcome: Outcome) -> None:
    tools = _Tools(case)
    try:
        probe(tools.file, case.top)
    except ImagingError as err:
        _note(err, outcome)
    tools.require_little_work("probing")


def _open_and_read(case: Case, outcome: Outcome, chance: random.Random) -> None:
    tools = _Tools(case)
    outcome.as_told = chance.random() < 0.8
    form = case.form if outcome.as_told else None
    try:
        image = open_image(tools.file, format=form, name=case.top, siblings=tools.folder)
    except ImagingError as err:
        _note(err, outcome)
        tools.require_little_work("refusing")
        _require_closed(tools)
        return
    outcome.opened = True
    tools.require_little_work("opening")
    try:
        _look(case, image, tools, chance, outcome)
    except InvalidImage as err:
        if not _is_lazy(case, image.info.format):
            raise Violation(f"opened, but then {type(err).__name__}: {err}") from err
        _note(err, outcome)
    except ImagingError as err:
        raise Violation(f"opened, but then {type(err).__name__}: {err}") from err
    image.close()
    image.close()
    _require_closed(tools)


def _is_lazy(case: Case, form: str) -> bool:
    """Tell whether an image may turn out damaged when it is read: L2 tables, compressed grains."""
    starts = [content.get(0, 16).ljust(16, b"\0") for content in case.files.values()]
    compressed = any(start[:4] == b"KDMV" and start[10] & 1 for start in starts)
    return form in ("ova", "qcow2") or (form == "vmdk" and compressed)


def _require_closed(tools: _Tools) -> None:
    if tools.folder.left_open:
        raise Violation(f"{tools.folder.left_open} files were left open")
    if not tools.file.is_open:
        raise Violation("the caller's file was closed")


def _look(
    case: Case, image: DiskImage, tools: _Tools, chance: random.Random, outcome: Outcome
) -> None:
    """Look at everything that an open image offers."""
    info = image.info
    for text in (info.subformat or "none", info.parent or "none", *info.warnings):
        _require_readable(text)
    limit = MAX_VIRTUAL_SIZE if info.format != "raw" else tools.size
    if not 0 < image.size <= limit or image.size != info.virtual_size:
        raise Violation(f"a disk of {image.size} bytes")
    extents = _extents(image, tools)
    tools.require_little_work("listing extents of")
    tools.begin()
    parts = [(0, 64 * KiB), (image.size - 64 * KiB, 64 * KiB), (image.size // 3 - 7, 4097)]
    for extent in chance.sample(extents, min(6, len(extents))):
        parts.append((extent.offset + extent.length // 2, 8 * KiB))
        _require_zeros(image, extent)
    asked = sum(length for _, length in parts)
    for offset, length in parts:
        start = min(max(0, offset), image.size)
        read_bytes(image, start, min(length, image.size - start))
    tools.require_little_work("reading samples of", asked=asked)
    if image.size <= _SMALL_DISK:
        outcome.root = digest_device(image, threads=1).root
        if chance.random() < 0.04:
            _convert(image, outcome.root, case)


def _extents(image: DiskImage, tools: _Tools) -> list[Extent]:
    most = 2 * tools.size + 1000
    position, found = 0, []
    for extent in image.extents(0, image.size):
        if extent.offset != position or extent.length <= 0 or extent.end > image.size:
            raise Violation(f"{extent} at {position} of {image.size}")
        position = extent.end
        found.append(extent)
        if len(found) > most:
            raise Violation(f"more than {most} extents of {tools.size} bytes of files")
        if len(found) == _EXTENTS:
            return found
    if position != image.size:
        raise Violation(f"the extents end at {position} of {image.size}")
    return found


def _require_zeros(image: DiskImage, extent: Extent) -> None:
    if not extent.is_data and any(read_bytes(image, extent.offset, min(extent.length, 4096))):
        raise Violation(f"{extent} holds data")


def _convert(image: DiskImage, root: str, case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        options = Options(
            OPTIONS.unique_id, OPTIONS.timestamp, extents=image.extents(0, image.size)
        )
        to = random.Random(case.name).choice(("raw", "vhdx:dynamic"))
        size = TARGETS[to].padded_size(image.size, sector_size=512)
        with NewFile(path) as file:
            convert(image, TARGETS[to].make(file, size, options))
            file.commit()
        written = open_image(PageDevice(Pages.read(path), Work()), format=to.partition(":")[0])
        if size == image.size and digest_device(written, threads=1).root != root:
            raise Violation(f"converted to {to} it is another disk")


def _check(case: Case, outcome: Outcome) -> None:
    tools = _Tools(case)
    try:
        report = check_image(tools.file, format=case.form, name=case.top, siblings=tools.folder)
    except ImagingError as err:
        _note(err, outcome)
    else:
        _require_report(report)
    tools.require_little_work("checking", factor=2)
    _require_closed(tools)


def _require_report(report: CheckReport) -> None:
    if len(report.findings) > 21 * 20:
        raise Violation(f"{len(report.findings)} findings")
    for finding in report.findings:
        _require_readable(finding.message)


def _edit(case: Case, outcome: Outcome, chance: random.Random) -> None:
    """Write into the image, over an overlay; it must then read as it was before but for what was written."""
    tools = _Tools(case)
    overlay = OverlayDevice(tools.file)
    try:
        image = edit_image(overlay, format=case.form, name=case.top, siblings=tools.folder)
    except ImagingError as err:
        _note(err, outcome)
        _require_closed(tools)
        return
    size = image.size
    before = bytearray(read_bytes(image, 0, size)) if size <= _SMALL_DISK else None
    offset, data = 0, b""
    # Of a longer file an overlay in memory would be too long; of a larger disk only the last write is compared.
    for _ in range(chance.choice((1, 1, 4)) if overlay.size <= 64 * GiB else 0):
        offset = chance.choice((0, max(0, size - 512), chance.randrange(size) // 512 * 512))
        length = min(chance.choice((512, 4096, 70 * KiB, 2 * MiB)), size - offset)
        if before is None or chance.random() < 0.6:
            data = chance.randbytes(length)
            image.write(offset, data)
        else:
            data = bytes(length)
            image.zero(offset, length)
        if chance.random() < 0.5:
            image.flush()
        if before is not None:
            before[offset : offset + length] = data
    if overlay.size <= 64 * GiB:
        image.flush()
    image.close()
    _require_closed(tools)
    again = open_image(overlay, format=case.form, name=case.top, siblings=tools.folder)
    if read_bytes(again, offset, len(data)) != data:
        raise Violation(f"{len(data)} bytes written at {offset} read back as others")
    if before is not None and read_bytes(again, 0, size) != before:
        raise Violation("after writes the disk is another one than was written")
    again.close()
