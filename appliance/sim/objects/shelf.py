"""Shelf: objects and parts as files in one directory. Knows no HTTP."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c

from appliance.sim.call import Refusal
from appliance.sim.objects.records import Object, Part, Shelved, Upload

_PIECE = 1 << 20


class Shelf:
    """All bytes of one simulator, in one directory."""

    def __init__(self, directory: Path, state: Shelved, save: Callable[[], None]) -> None:
        """Keep files in `directory`; `save` writes the state down."""
        self.directory = directory
        self.state = state
        self.save = save

    def number(self) -> int:
        """Return a number that was never given before."""
        self.state.next += 1
        return self.state.next

    def bucket(self, name: str) -> str:
        """Return a bucket's location; raises NoSuchBucket."""
        if name not in self.state.buckets:
            raise Refusal(404, "NoSuchBucket", "The specified bucket does not exist.")
        return self.state.buckets[name]

    def store(self, data: bytes) -> Part:
        """Keep the bytes of one part."""
        name = f"{self.number():06d}.part"
        (self.directory / name).write_bytes(data)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return Part(name, len(data), int(google_crc32c.value(data)), f'"{etag}"')

    def forget(self, part: Part) -> None:
        """Delete the bytes of one part."""
        (self.directory / part.file).unlink(missing_ok=True)

    def complete(self, upload: Upload, parts: list[Part], now: float) -> Object:
        """Make the object of an upload."""
        made = Object(
            bucket=upload.bucket,
            name=upload.name,
            parts=parts,
            generation=int(now * 1_000_000) + self.number(),
            created=now,
            crc32c=0,
            content_type=upload.content_type,
            metadata=upload.metadata,
        )
        made.crc32c = self._crc_of(made)
        key = f"{upload.bucket}/{upload.name}"
        replaced = self.state.objects.get(key)
        self.state.objects[key] = made
        self.save()
        for part in replaced.parts if replaced else []:
            self.forget(part)
        return made

    def find(self, bucket: str, name: str) -> Object:
        """Return an object; raises NoSuchKey."""
        self.bucket(bucket)
        found = self.state.objects.get(f"{bucket}/{name}")
        if found is None:
            raise Refusal(404, "NoSuchKey", f"No such object: {bucket}/{name}")
        return found

    def delete(self, found: Object) -> None:
        """Delete an object."""
        del self.state.objects[f"{found.bucket}/{found.name}"]
        self.save()
        for part in found.parts:
            self.forget(part)

    def read(self, found: Object, offset: int, length: int) -> Iterator[bytes]:
        """Yield a range of an object."""
        for part in found.parts:
            if offset < part.size and length > 0:
                with (self.directory / part.file).open("rb") as file:
                    file.seek(offset)
                    left = min(length, part.size - offset)
                    length -= left
                    while left:
                        piece = file.read(min(_PIECE, left))
                        if not piece:
                            raise OSError(f"{part.file} is shorter than {part.size} bytes")
                        left -= len(piece)
                        yield piece
            offset = max(0, offset - part.size)

    def flip(self, found: Object, offset: int) -> None:
        """Damage one stored bit."""
        for part in found.parts:
            if offset < part.size:
                with (self.directory / part.file).open("r+b") as file:
                    file.seek(offset)
                    byte = file.read(1)
                    file.seek(offset)
                    file.write(bytes([byte[0] ^ 1]))
                return
            offset -= part.size

    def _crc_of(self, found: Object) -> int:
        crc = 0
        for piece in self.read(found, 0, found.size):
            crc = int(google_crc32c.extend(crc, piece))
        return crc


def encoded_crc(value: int) -> str:
    """Return a CRC-32C as both services write it."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()
