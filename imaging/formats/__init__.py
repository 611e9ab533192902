"""Image formats: devices over devices. This registry is the only way to open one."""

from collections.abc import Callable

from imaging.device import BlockDevice
from imaging.errors import ImagingError, UnsupportedImage
from imaging.formats.base import DiskImage, ImageInfo
from imaging.formats.probe import probe
from imaging.formats.raw import open_raw
from imaging.formats.vhd import open_vhd
from imaging.formats.vhdx import open_vhdx

__all__ = ["FORMATS", "DiskImage", "ImageInfo", "open_image", "probe"]

_OPENERS: dict[str, Callable[[BlockDevice], DiskImage]] = {
    "raw": open_raw,
    "vhd": open_vhd,
    "vhdx": open_vhdx,
}
FORMATS = tuple(_OPENERS)


def open_image(file: BlockDevice, *, format: str | None = None, name: str = "") -> DiskImage:
    """Open the disk inside `file` for reading, after all its metadata were checked.

    Args:
        file: Stays open when the image is closed; closing it is the caller's.
        format: One of FORMATS, and then never second-guessed; None looks at the file.
        name: What messages call the file; its suffix helps when the format is None.

    Raises:
        ImagingError: With the cause and, where there is one, the offset in the file.
    """
    if format is not None and format not in _OPENERS:
        raise UnsupportedImage(f"format {format!r} is none of {', '.join(FORMATS)}", found=format)
    try:
        return _OPENERS[format or probe(file, name)](file)
    except ImagingError as err:
        if not name or str(err).startswith(name):
            raise
        raise type(err)(f"{name}: {err}", **{**err.fields, "path": name}) from err
