"""Place: where an image lies and how it was reached; opens what the image names, and ends loops."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imaging.device import BlockDevice
from imaging.errors import ImagingError, InvalidImage, ParentNeeded
from imaging.siblings import Siblings, bare_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from imaging.formats.base import DiskImage

MAX_CHAIN = 32
"""Images from the top to the base: more are a mistake, or an attack."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one image lies.

    Attributes:
        name: Bare name of the image's file; "" if unknown.
        siblings: The files beside it; None: there are none to be had, an image that needs one is refused.
        open_as: (file, format, place) -> image: for formats whose parent may be of another format.
        above: Names of the images that led here, the top first.
    """

    name: str = ""
    siblings: Siblings | None = None
    open_as: "Callable[[BlockDevice, str, Place], DiskImage] | None" = None
    above: tuple[str, ...] = ()

    def open_file(self, name: str, *, what: str, offset: int | None = None) -> BlockDevice:
        """Open a file beside the image; the caller closes it.

        Raises:
            ParentNeeded: Nothing lies beside it.
            ReferenceRefused, DeviceError: See `imaging.siblings`.
        """
        name = bare_name(name, what=what, offset=offset)
        if self.siblings is None:
            raise ParentNeeded(f"the {what} {name!r} is needed", offset=offset, found=name)
        return self.siblings.open(name)

    def below(self, name: str, *, offset: int | None = None) -> "Place":
        """Return the place of the parent of that name.

        Raises:
            InvalidImage: The chain comes back to an image that led here, or is too long.
        """
        chain = (*self.above, self.name)
        if name in chain:
            raise InvalidImage(
                f"the chain of parents comes back to {name!r}", offset=offset, found=name
            )
        if len(chain) >= MAX_CHAIN:
            raise InvalidImage(f"more than {MAX_CHAIN} images in one chain", offset=offset)
        return replace(self, name=name, above=chain)


NOWHERE = Place()
"""Of an image without a folder."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of the file beside the image before what is wrong with it."""
    try:
        yield
    except ImagingError as err:
        raise type(err)(f"{name}: {err}", **{**err.fields, "file": name}) from err
