"""Tables of unsigned numbers of 2 ("H"), 4 ("I") or 8 bytes ("Q"), as image files have them, on any machine."""

import sys
from array import array
from typing import Literal

from imaging.device import BlockDevice

Order = Literal["little", "big"]


def read_words(file: BlockDevice, offset: int, count: int, kind: str, order: Order) -> "array[int]":
    """Read `count` numbers at file offset `offset`.

    Args:
        file: Whose content they are.
        offset: In bytes.
        count: Bounded by the caller: so much memory is taken.
        kind: "H", "I" or "Q".
        order: Of the bytes in the file.

    Raises:
        ReadFailed, SourceChanged: By the file.
    """
    words = array(kind, bytes(array(kind).itemsize)) * count
    with memoryview(words) as view, view.cast("B") as raw:
        file.read_into(offset, raw)
    order_words(words, order)
    return words


def order_words(words: "array[int]", order: Order) -> None:
    """Turn bytes as the file has them into numbers of this machine, in place."""
    if order != sys.byteorder:
        words.byteswap()


def pack_words(words: "array[int]", order: Order) -> bytes:
    """Return the bytes of numbers as the file is to have them; the numbers stay as they are."""
    if order != sys.byteorder:
        words = words[:]
        words.byteswap()
    return words.tobytes()
