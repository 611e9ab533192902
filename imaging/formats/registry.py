"""The registry of image formats: what can be done with each. A format is imported when it is first used."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imaging.check import Finding
from imaging.device import BlockDevice, ResizableDevice
from imaging.formats.base import DiskImage, WritableImage
from imaging.formats.place import Place
from imaging.late import load

Opener = Callable[[BlockDevice, Place], DiskImage]
Editor = Callable[[ResizableDevice, Place], WritableImage]
Resizer = Callable[[ResizableDevice, int], None]
Repairer = Callable[[ResizableDevice], None]
Checker = Callable[[BlockDevice, DiskImage], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Format:
    """The functions of one format, as "module:name"; "" where it has none.

    Attributes:
        opens: Opens it for reading.
        edits: Opens it to be written in place; a parent is only read.
        checks: Looks further than opening does; gets the file, and the image that opened in it without an error.
        repairs: Mends what `checks` calls repairable, in a file that opened without an error.
        resizes: Makes its disk larger.
    """

    opens: str
    checks: str
    edits: str = ""
    repairs: str = ""
    resizes: str = ""

    def opener(self) -> Opener:
        """Return what opens it."""
        found: Opener = load(self.opens)
        return found

    def editor(self) -> Editor:
        """Return what opens it to be written; only where `edits` is not empty."""
        found: Editor = load(self.edits)
        return found

    def checker(self) -> Checker:
        """Return what checks it."""
        found: Checker = load(self.checks)
        return found

    def repairer(self) -> Repairer | None:
        """Return what repairs it."""
        found: Repairer | None = load(self.repairs) if self.repairs else None
        return found

    def resizer(self) -> Resizer:
        """Return what makes its disk larger; only where `resizes` is not empty."""
        found: Resizer = load(self.resizes)
        return found


_PACKAGE = "imaging.formats"
REGISTRY = {
    "raw": Format(
        f"{_PACKAGE}.raw.device:open_raw",
        edits=f"{_PACKAGE}.raw.device:edit_raw",
        checks=f"{_PACKAGE}.raw.check:check_raw",
        resizes=f"{_PACKAGE}.raw.device:resize_raw",
    ),
    "vhd": Format(
        f"{_PACKAGE}.vhd.device:open_vhd",
        edits=f"{_PACKAGE}.vhd.edit:edit_vhd",
        checks=f"{_PACKAGE}.vhd.check:check_vhd",
        repairs=f"{_PACKAGE}.vhd.repair:repair_vhd",
        resizes=f"{_PACKAGE}.vhd.resize:resize_vhd",
    ),
    "vhdx": Format(
        f"{_PACKAGE}.vhdx.device:open_vhdx",
        edits=f"{_PACKAGE}.vhdx.edit:edit_vhdx",
        checks=f"{_PACKAGE}.vhdx.check:check_vhdx",
        repairs=f"{_PACKAGE}.vhdx.repair:repair_vhdx",
        resizes=f"{_PACKAGE}.vhdx.resize:resize_vhdx",
    ),
    "qcow2": Format(
        f"{_PACKAGE}.qcow2.device:open_qcow2", checks=f"{_PACKAGE}.qcow2.check:check_qcow2"
    ),
    "vmdk": Format(f"{_PACKAGE}.vmdk.device:open_vmdk", checks=f"{_PACKAGE}.vmdk.check:check_vmdk"),
    "ova": Format(f"{_PACKAGE}.ova.device:open_ova", checks=f"{_PACKAGE}.ova.check:check_ova"),
}
FORMATS = tuple(REGISTRY)
RESIZABLE = tuple(name for name, form in REGISTRY.items() if form.resizes)
EDITABLE = tuple(name for name, form in REGISTRY.items() if form.edits)
