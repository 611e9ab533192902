"""The oracle on real files of a folder: same outcome as in memory, and no file outside of the folder is opened."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imaging.digest import digest_device
from imaging.errors import ImagingError
from imaging.formats import check_path, open_path
from tests.fuzz.cases import Case
from tests.fuzz.pages import PAGE, Violation
from tests.support.disks import GiB, MiB, write_sparse

_MOST_STORED = 4 * MiB
_opened: list[str] | None = None


def judge_files(case: Case, *, codes: set[str], root: str | None) -> None:
    """Open and check the case on disk.

    Args:
        case: Its files.
        codes: What refused it in memory; empty if nothing did.
        root: Of the disk in memory, if it was read to the end.

    Raises:
        Violation: Another outcome, or a file that is not the image's.
    """
    if sum(file.stored for file in case.files.values()) > _MOST_STORED:
        return
    if any(file.size > GiB for file in case.files.values()):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each, file in case.files.items():
            write_sparse(folder / each, file.size, {n * PAGE: p for n, p in file.pages.items()})
            os.truncate(folder / each, file.size)
        with _watching(folder):
            found = _outcome(folder / case.top, case.form, with_root=root is not None)
        expected = (codes, root)
        if found != expected:
            raise Violation(f"on disk it is {found}, in memory {expected}")


def _outcome(path: Path, form: str, *, with_root: bool) -> tuple[set[str], str | None]:
    codes, root = set[str](), None
    try:
        with open_path(path, format=form) as image:
            if with_root:
                root = digest_device(image, threads=1).root
    except ImagingError as err:
        codes.add(err.code)
    try:
        check_path(path, format=form)
    except ImagingError as err:
        codes.add(err.code)
    return codes, root


@contextmanager
def _watching(folder: Path) -> Iterator[None]:
    """Raise if anything outside of the folder is opened inside, but for Python's own modules."""
    global _opened  # noqa: PLW0603  (an audit hook cannot be taken away again)
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    _opened = []
    try:
        yield
        strange = [
            path
            for path in _opened
            if not path.startswith(f"{folder}/") and not path.endswith((".py", ".pyc", ".so"))
        ]
    finally:
        _opened = None
    if strange:
        raise Violation(f"opened {strange[:3]}")


_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | bytes | Path):
        _opened.append(os.fsdecode(arguments[0]))
