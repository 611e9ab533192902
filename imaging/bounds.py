"""Range checks that every device and parser shares; holds no format's rules."""

from imaging.errors import OutOfRange


def require_range(offset: int, length: int, size: int) -> None:
    """Raise OutOfRange unless (offset, length) lies inside [0, size)."""
    if offset < 0 or length < 0 or offset + length > size:
        raise OutOfRange(
            f"range ({offset}, {length}) is not inside a device of {size} bytes",
            offset=offset,
            length=length,
            size=size,
        )


def require_behind(offset: int, size: int) -> None:
    """Refuse a place before the end of a device of `size` bytes.

    Raises:
        OutOfRange: It is inside.
    """
    if offset < size:
        raise OutOfRange(
            f"{offset} is not behind a device of {size} bytes", offset=offset, size=size
        )
