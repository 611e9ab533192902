"""What an object store remembers of uploads and objects; part of its simulator's one JSON file."""

import hashlib
from typing import Protocol

import msgspec


class Part(msgspec.Struct):
    """One part of an upload, or of an object; its bytes are in `file`."""

    file: str
    size: int
    crc32c: int
    etag: str


class Upload(msgspec.Struct):
    """One XML multipart upload that is not completed."""

    bucket: str
    name: str
    started: float
    content_type: str
    metadata: dict[str, str] = {}
    parts: dict[int, Part] = {}


class Object(msgspec.Struct):
    """One object: parts, one after the other."""

    bucket: str
    name: str
    parts: list[Part]
    generation: int
    created: float
    crc32c: int
    content_type: str
    metadata: dict[str, str] = {}
    metageneration: int = 1

    @property
    def etag(self) -> str:
        """As both services make it of parts: no digest of the bytes."""
        tags = "".join(part.etag.strip('"') for part in self.parts)
        digest = hashlib.md5(bytes.fromhex(tags), usedforsecurity=False).hexdigest()
        return f'"{digest}-{len(self.parts)}"'

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.size for part in self.parts)


class Shelved(Protocol):
    """A simulator's state, as far as the shelf uses it: buckets are name -> location."""

    buckets: dict[str, str]
    uploads: dict[str, Upload]
    objects: dict[str, Object]
    next: int
