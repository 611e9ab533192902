"""Image formats: devices over devices. This is the only way to open one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imaging.check import CheckReport, bounded
from imaging.device import BlockDevice, ResizableDevice
from imaging.errors import FormatUnsaid, ImagingError, ReferenceRefused, UnsupportedImage
from imaging.filedev import FileDevice, FileId
from imaging.formats.base import DiskImage, ImageInfo, WritableImage
from imaging.formats.place import Place
from imaging.formats.probe import probe, promises
from imaging.formats.registry import EDITABLE, FORMATS, REGISTRY, RESIZABLE
from imaging.siblings import LocalFolder, Siblings, last_component

__all__ = [
    "EDITABLE",
    "FORMATS",
    "RESIZABLE",
    "CheckReport",
    "DiskImage",
    "ImageInfo",
    "check_image",
    "check_path",
    "edit_image",
    "edit_path",
    "open_files",
    "open_image",
    "open_path",
    "probe",
    "repair_path",
    "resize_path",
    "said_format",
]


def open_image(
    file: BlockDevice,
    *,
    format: str | None = None,
    name: str = "",
    siblings: Siblings | None = None,
) -> DiskImage:
    """Open the disk inside `file` for reading, after all its metadata were checked.

    Args:
        file: Stays open when the image is closed; closing it is the caller's.
        format: One of FORMATS, and then never second-guessed; None looks at the file.
        name: What messages call the file; its suffix helps when the format is None.
        siblings: Where parents, extents and data files are looked for; None: such images are refused. Only used if
            `format` was given, or the suffix of `name` says the format that was found: a guest can write any header
            into its raw disk, and so would choose which files beside it are read (CVE-2024-32498).

    Raises:
        ImagingError: With the cause and, where there is one, the offset in the file.
    """
    try:
        found = format or probe(file, name)
        if siblings is not None and format is None and not promises(name, found):
            siblings = _Unsaid(found)
        return _open_as(file, found, Place(last_component(name), siblings, _open_as))
    except ImagingError as err:
        raise _named(err, name) from err.__cause__


def edit_image(
    file: ResizableDevice, *, format: str, name: str = "", siblings: Siblings | None = None
) -> WritableImage:
    """Open the disk inside `file` for reading and writing in place, after all its metadata were checked.

    Opening may write: a log that was never applied is applied. For a dry run lay an OverlayDevice over the file.

    Args:
        file: Stays open when the image is closed; nobody else may write it meanwhile.
        format: One of EDITABLE. It is never guessed: a wrong guess would be written.
        name: What messages call the file.
        siblings: Where its parent is looked for, which is only read; None: an image with a parent is refused.

    Raises:
        UnsupportedImage: The format is read, but not written in place.
        ImagingError: With the cause and, where there is one, the offset in the file.
    """
    if format not in EDITABLE:
        known = ", ".join(EDITABLE)
        raise UnsupportedImage(
            f"images of format {format!r} are not written in place, only {known}: convert it",
            found=format,
        )
    try:
        return REGISTRY[format].editor()(file, Place(last_component(name), siblings, _open_as))
    except ImagingError as err:
        raise _named(err, name) from err.__cause__


@contextmanager
def edit_path(path: str | Path, *, format: str) -> Iterator[WritableImage]:
    """Open an image file of this machine to be written in place, locked against other writers of ours."""
    file = FileDevice(path, writable=True)
    try:
        file.lock()
        folder = LocalFolder(Path(path).resolve().parent)
        image = edit_image(file, format=format, name=str(path), siblings=folder)
        try:
            yield image
        finally:
            image.close()
    finally:
        file.close()


def check_image(
    file: BlockDevice,
    *,
    format: str | None = None,
    name: str = "",
    siblings: Siblings | None = None,
) -> CheckReport:
    """Open the disk inside `file`, which proves what its reading needs, and look at what reading does not need.

    Of parents and extents only the opening is done. Arguments as for `open_image`.

    Raises:
        ImagingError: The disk cannot be read.
    """
    image = open_image(file, format=format, name=name, siblings=siblings)
    try:
        info = image.info
        look = REGISTRY[info.format].checker()
        findings = tuple(bounded(look(file, image)))
    finally:
        image.close()
    return CheckReport(
        format=info.format,
        subformat=info.subformat,
        virtual_size=info.virtual_size,
        file_size=info.file_size,
        parent=info.parent,
        findings=findings,
    )


def check_path(path: str | Path, *, format: str | None = None) -> CheckReport:
    """Check an image file of this machine; whatever it needs is opened from its folder."""
    file = FileDevice(path)
    try:
        folder = LocalFolder(Path(path).resolve().parent)
        return check_image(file, format=format, name=str(path), siblings=folder)
    finally:
        file.close()


def repair_path(path: str | Path, *, format: str | None = None) -> tuple[CheckReport, CheckReport]:
    """Mend what a check of an image file of this machine calls repairable; return the reports before and after.

    No byte of the disk changes. Nothing is written where nothing is repairable.

    Raises:
        FormatUnsaid: Neither `format` nor the file's name says what it is.
        FileBusy: Somebody else is writing it.
        ImagingError: The disk cannot be read.
    """
    before = check_path(path, format=format)
    repair = REGISTRY[before.format].repairer()
    if repair is None or not any(finding.repairable for finding in before.findings):
        return before, before
    said = said_format(path, format=format)
    file = FileDevice(path, writable=True)
    try:
        file.lock()
        repair(file)
    finally:
        file.close()
    return before, check_path(path, format=said)


def resize_path(path: str | Path, size: int, *, format: str) -> None:
    """Make the disk of an image file of this machine `size` bytes long; what is added reads as zeros.

    Raises:
        UnsupportedImage: Images of this format are not resized.
        SizeRefused: It is no larger, or no whole number of sectors.
        FileBusy: Somebody else is writing it.
        ImagingError: The image cannot be opened, or cannot be resized safely.
    """
    if format not in RESIZABLE:
        known = ", ".join(RESIZABLE)
        raise UnsupportedImage(
            f"images of format {format!r} are not resized, only {known}: convert it", found=format
        )
    file = FileDevice(path, writable=True)
    try:
        file.lock()
        REGISTRY[format].resizer()(file, size)
    except ImagingError as err:
        raise _named(err, str(path)) from err.__cause__
    finally:
        file.close()


def said_format(path: str | Path, *, format: str | None) -> str:
    """Return the format of a file that is to be written: what was given, or what its name promises and it is.

    Raises:
        FormatUnsaid: Only its content says it.
        ImagingError: It cannot be read.
    """
    if format is not None:
        return format
    file = FileDevice(path)
    try:
        found = probe(file, str(path))
    finally:
        file.close()
    if found != "raw" and not promises(str(path), found):
        raise FormatUnsaid(
            f"{path}: it looks like {found}, but nobody said so, nor does its name",
            path=str(path),
            found=found,
        )
    return found


@contextmanager
def open_path(path: str | Path, *, format: str | None = None) -> Iterator[DiskImage]:
    """Open an image file of this machine and whatever it needs from its folder; close all of it at the end."""
    with open_files(path, format=format) as (image, _):
        yield image


@contextmanager
def open_files(
    path: str | Path, *, format: str | None = None
) -> Iterator[tuple[DiskImage, tuple[FileId, ...]]]:
    """Open an image as `open_path` does, and tell all files that it was opened from: itself, parents, extents."""
    file = FileDevice(path)
    try:
        folder = LocalFolder(Path(path).resolve().parent)
        itself = file.identify()
        image = open_image(file, format=format, name=str(path), siblings=folder)
        try:
            yield image, (itself, *folder.opened)
        finally:
            image.close()
    finally:
        file.close()


class _Unsaid:
    """The folder of an image of which nobody said the format: opens nothing."""

    def __init__(self, found: str) -> None:
        self._found = found

    def open(self, name: str) -> BlockDevice:
        """Refuse."""
        raise ReferenceRefused(
            f"it looks like {self._found} and names the file {name!r}, but nobody said that format, nor does its own"
            " name: give it to have that file read",
            found=name,
        )


def _open_as(file: BlockDevice, format: str, place: Place) -> DiskImage:
    if format not in REGISTRY:
        raise UnsupportedImage(f"format {format!r} is none of {', '.join(FORMATS)}", found=format)
    return REGISTRY[format].opener()(file, place)


def _named(err: ImagingError, name: str) -> ImagingError:
    """Return the error with the file's name before it, if it is not there yet."""
    if not name or str(err).startswith(name):
        return err
    return type(err)(f"{name}: {err}", **{**err.fields, "path": name})
