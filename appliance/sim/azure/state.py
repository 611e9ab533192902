"""What the Azure simulator remembers besides page bytes: identity, containers, blobs, disks; one JSON file.

The file is replaced as a whole after each change of these records, so a killed simulator comes back as it was.
Page writes do not touch it (`appliance.sim.store` records them).
"""

import secrets
from base64 import b64encode
from typing import Any

import msgspec

FILE_NAME = "azure.json"


class Identity(msgspec.Struct):
    """Names and secrets of one simulator; made up once, so that clients keep working after a restart."""

    account: str
    key: str
    subscription: str
    tenant: str
    client_id: str
    client_secret: str
    token_secret: str


class Container(msgspec.Struct):
    """One blob container."""

    created: float
    metadata: dict[str, str] = {}


class CopyRecord(msgspec.Struct):
    """The server-side copy that made a blob; pending until `due`."""

    copy_id: str
    source: str
    started: float
    due: float


class BlobRecord(msgspec.Struct):
    """One page blob; also the backing of a managed disk.

    Attributes:
        file: Name of its PageFile.
        changes: Changes that were not page writes; with the page writes they make the ETag.
        content: Content-Type, Content-MD5, ... as set by the client (lower-case header names of the answer).
    """

    file: str
    size: int
    created: float
    modified: float
    changes: int = 0
    sequence: int = 0
    metadata: dict[str, str] = {}
    content: dict[str, str] = {}
    copy: CopyRecord | None = None


class Policy(msgspec.Struct):
    """One granted access to a disk: what its SAS's `si` points to."""

    permissions: str
    expires: float


class DiskRecord(msgspec.Struct):
    """One managed disk; field names of the REST model are made in `arm`."""

    name: str
    group: str
    location: str
    sku: str
    created: float
    unique_id: str
    label: str
    folder: str
    blob: BlobRecord
    os_type: str = ""
    generation: str = ""
    zones: list[str] = []
    tags: dict[str, str] = {}
    state: str = "ReadyToUpload"
    provisioning: str = "Updating"
    policies: dict[str, Policy] = {}
    managed_by: str = ""
    more: dict[str, Any] = {}
    kind: str = "disks"
    """Or "snapshots": what its resource type is called."""
    source: str = ""
    """ARM id of the disk that a snapshot was made of."""


class GalleryRecord(msgspec.Struct):
    """One gallery, image definition or image version; `body` is the resource without what the service adds.

    A version keeps a copy of its disk's bytes.
    """

    path: str
    group: str
    body: dict[str, Any]
    creating: bool = False
    blob: BlobRecord | None = None


class State(msgspec.Struct):
    """Everything in the file."""

    identity: Identity
    groups: dict[str, str] = {}
    containers: dict[str, Container] = {}
    blobs: dict[str, BlobRecord] = {}
    disks: dict[str, DiskRecord] = {}
    galleries: dict[str, GalleryRecord] = {}
    voided: list[str] = []
    granted: list[str] | None = None
    """Actions that every caller of ARM may do; None: all."""
    next_file: int = 1


def new_identity(account: str) -> Identity:
    """Make up the names and secrets of a new simulator."""
    return Identity(
        account=account,
        key=b64encode(secrets.token_bytes(64)).decode(),
        subscription="00000000-0000-4000-8000-00000000a2e0",
        tenant="00000000-0000-4000-8000-000000007e4a",
        client_id="00000000-0000-4000-8000-00000000c11e",
        client_secret=secrets.token_urlsafe(24),
        token_secret=secrets.token_hex(32),
    )
