"""The owner tag: how an appliance knows its own objects in a cloud again, and nobody can plant one. Pure (PROTOCOL 7).

mac = first 16 bytes of HMAC-SHA-256(tag key, msgpack ["imageport/owner/v1", provider, account, region, object name,
origin id]).
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

from protocol.codec import encode

_HEX = re.compile(r"[0-9a-f]{32}")
TAG_PREFIX = "imageport-"


@dataclass(frozen=True, slots=True)
class OwnerTag:
    """Who made an object, for which line of commands (`origin`, hex id), in which attempt; mac in hex."""

    appliance: str
    origin: str
    attempt: int
    mac: str

    def as_tags(self) -> dict[str, str]:
        """Return the tag as the string pairs that clouds store."""
        return {
            TAG_PREFIX + "appliance": self.appliance,
            TAG_PREFIX + "origin": self.origin,
            TAG_PREFIX + "attempt": str(self.attempt),
            TAG_PREFIX + "mac": self.mac,
        }


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Where an object is: the part that the mac binds."""

    provider: str
    account: str
    region: str
    name: str


def make_tag(
    key: bytes, place: ObjectPlace, *, appliance: str, origin: str, attempt: int
) -> OwnerTag:
    """Make the tag of one object."""
    return OwnerTag(appliance, origin, attempt, _mac(key, place, origin))


def read_tag(tags: dict[str, str], key: bytes, place: ObjectPlace) -> OwnerTag | None:
    """Return the tag that `tags` carry if it is ours and belongs to this very object, else None."""
    try:
        tag = OwnerTag(
            tags[TAG_PREFIX + "appliance"],
            tags[TAG_PREFIX + "origin"],
            int(tags[TAG_PREFIX + "attempt"]),
            tags[TAG_PREFIX + "mac"],
        )
    except (KeyError, ValueError):
        return None
    if not _HEX.fullmatch(tag.mac) or not tag.origin.isascii():
        return None
    return tag if hmac.compare_digest(_mac(key, place, tag.origin), tag.mac) else None


def _mac(key: bytes, place: ObjectPlace, origin: str) -> str:
    message = encode(
        ["imageport/owner/v1", place.provider, place.account, place.region, place.name, origin]
    )
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]
