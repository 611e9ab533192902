"""Reference: a path by which an image names another file, as a value; opens nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reference:
    """A path in an image; only its last component is ever used, beside the image.

    Attributes:
        path: As the image says it.
        offset: Where it stands in the image file.
        relative: Whether it counts from the image's folder, and so must not leave it.
    """

    path: str
    offset: int
    relative: bool = False

    @property
    def climbs(self) -> bool:
        """Whether a part of the path is `..`."""
        return ".." in self.path.replace("\\", "/").split("/")
