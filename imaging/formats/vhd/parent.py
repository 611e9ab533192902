"""How a differencing VHD names its parent: reads the locators and the name; opens no other file."""

from imaging.device import BlockDevice, read_bytes
from imaging.errors import Truncated
from imaging.formats.reference import Reference
from imaging.formats.spans import FileRange
from imaging.formats.vhd.layout import DynamicHeader
from imaging.formats.vhd.locator import (
    LOCATORS_AT,
    NAME_AT,
    RELATIVE,
    Locator,
    parse_locators,
    parse_name,
    parse_path,
)


def read_references(
    file: BlockDevice, header: DynamicHeader, header_offset: int
) -> tuple[list[Reference], list[FileRange]]:
    """Return the paths of the parent in the order in which they count, and where the locators' text lies.

    Chains without any locator exist: there the header's own name is all there is.

    Raises:
        InvalidImage: A locator or the name cannot be.
        Truncated: A locator's text is not inside the file.
    """
    locators = parse_locators(header.parent_locators, header_offset + LOCATORS_AT)
    references = [_read(file, locator) for locator in locators]
    name = parse_name(header.parent_name, header_offset + NAME_AT)
    if name:
        references.append(Reference(name, header_offset + NAME_AT))
    texts = [FileRange(each.offset, each.length, "a parent locator") for each in locators]
    return references, texts


def _read(file: BlockDevice, locator: Locator) -> Reference:
    if locator.offset + locator.length > file.size:
        raise Truncated(
            f"a parent locator's text is {locator.length} bytes at file offset {locator.offset}, but"
            f" the file has {file.size} bytes",
            offset=locator.offset,
            file_size=file.size,
        )
    path = parse_path(read_bytes(file, locator.offset, locator.length), locator.offset)
    return Reference(path, locator.offset, relative=locator.code == RELATIVE)
