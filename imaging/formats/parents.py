"""The parent of a differencing image: found beside it by the names that the image gives, opened, and closed with it.

Knows no format: which names an image gives and what proves the parent are the formats' business.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from imaging.device import BlockDevice
from imaging.errors import (
    FileMissing,
    ImagingError,
    InvalidImage,
    ParentMismatch,
    ParentNeeded,
    ReferenceRefused,
)
from imaging.formats.base import DiskImage
from imaging.formats.place import Place
from imaging.formats.reference import Reference
from imaging.siblings import last_component


@dataclass(frozen=True, slots=True)
class Parent:
    """An open parent: `name` is that of its file, beside the image."""

    name: str
    image: DiskImage
    file: BlockDevice

    def close(self) -> None:
        """Close the image, those below it, and their files."""
        self.image.close()
        self.file.close()


def open_parent(
    place: Place,
    references: Sequence[Reference],
    open_checked: Callable[[BlockDevice, Place], DiskImage],
) -> Parent:
    """Open the first of the files named that is there.

    Args:
        place: Of the image that has the parent.
        references: In the order in which they count.
        open_checked: Opens the image in the file, once it is known to be the right one.

    Raises:
        ParentNeeded: None of the files is there.
        ReferenceRefused: A name leads elsewhere.
        InvalidImage: There is no name, or the chain comes back or is too long.
        ImagingError: Whatever is wrong with the parent, named.
    """
    name, file = _find(place, references)
    try:
        image = open_checked(file, place.below(name))
    except ImagingError as err:
        file.close()
        raise type(err)(f"parent {name!r}: {err}", **{"parent": name, **err.fields}) from err
    except BaseException:
        file.close()
        raise
    return Parent(name, image, file)


def require_sectors(parent: Parent, sector_size: int) -> None:
    """Refuse a parent whose logical sectors are of another size: Hyper-V makes no such chain.

    Raises:
        ParentMismatch: With both sizes; the parent is closed then.
    """
    found = parent.image.info.sector_size
    if found != sector_size:
        parent.close()
        raise ParentMismatch(
            f"parent {parent.name!r} has sectors of {found} bytes, expected {sector_size}",
            parent=parent.name,
            expected=sector_size,
            found=found,
        )


def inherited(parent: Parent, own: Iterable[str]) -> tuple[str, ...]:
    """Return the warnings of an image and, by name, what its parents say beyond that."""
    own = tuple(own)
    theirs = (warning for warning in parent.image.info.warnings if warning not in own)
    return own + tuple(f"parent {parent.name!r}: {warning}" for warning in theirs)


def _find(place: Place, references: Sequence[Reference]) -> tuple[str, BlockDevice]:
    names: dict[str, int] = {}
    for reference in references:
        names.setdefault(_name(reference), reference.offset)
    if not names:
        raise InvalidImage("a differencing image that names no parent")
    for name, offset in names.items():
        place.below(name, offset=offset)  # a loop is refused before the file is opened
        with suppress(FileMissing):
            return name, place.open_file(name, what="parent", offset=offset)
    told = ", ".join(map(repr, names))
    raise ParentNeeded(
        f"a differencing image whose parent is not beside it: looked for {told}",
        offset=next(iter(names.values())),
        found=list(names),
    )


def _name(reference: Reference) -> str:
    path = reference.path
    if reference.relative and reference.climbs:
        raise ReferenceRefused(
            f"the parent is {path[:200]!r}, which leads out of the image's folder",
            offset=reference.offset,
            found=path[:200],
        )
    return last_component(path)
