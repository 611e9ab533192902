"""Which file may be the parent of a differencing VHDX: compares data write GUIDs; finds and opens nothing."""

import uuid

from imaging.errors import ParentMismatch
from imaging.formats.vhdx.layout import Header
from imaging.formats.vhdx.locator import ParentLocator


def require_linkage(header: Header, locator: ParentLocator) -> None:
    """Refuse a parent that changed since its child was made ([MS-VHDX] 2.6.2.6.3).

    Raises:
        ParentMismatch: With both GUIDs.
    """
    found = uuid.UUID(bytes_le=header.data_write_guid)
    if found not in locator.linkages:
        expected = " or ".join(map(str, locator.linkages))
        raise ParentMismatch(
            f"its data write GUID is {found}, expected {expected}",
            expected=expected,
            found=str(found),
        )
