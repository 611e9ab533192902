"""What may become of a disk's size: up only, by whole sectors. Touches no file."""

from imaging.errors import SizeRefused


def require_larger(old: int, new: int, sector: int) -> None:
    """Refuse a new size that is no larger or no whole number of sectors.

    Raises:
        SizeRefused: With the reason.
    """
    if new <= old:
        raise SizeRefused(
            f"the disk has {old} bytes, {new} are not more: cutting it could cut what a guest needs",
            found=old,
            expected=new,
        )
    if new % sector:
        raise SizeRefused(
            f"{new} bytes are no multiple of {sector}, a sector of the disk", expected=new
        )
