"""Tagger: the owner tags of one line of jobs, made and read for one object at a time. Pure over protocol.owner."""

from dataclasses import dataclass, field

from protocol.owner import ObjectPlace, OwnerTag, make_tag, read_tag


@dataclass(frozen=True, slots=True)
class Tagger:
    """Makes the tags of what this attempt creates and recognises what this appliance made before.

    Attributes:
        key: HMAC key of this appliance.
        appliance: Its id.
        origin: Id of the first command of this line of retries, hex.
        attempt: Which attempt writes.
    """

    key: bytes = field(repr=False)
    appliance: str
    origin: str
    attempt: int

    def tags(self, scope: dict[str, str], name: str) -> dict[str, str]:
        """Return the string pairs to store with the object `name` in `scope` (as in Intent)."""
        place = _place(scope, name)
        tag = make_tag(
            self.key, place, appliance=self.appliance, origin=self.origin, attempt=self.attempt
        )
        return tag.as_tags()

    def read(self, tags: dict[str, str], scope: dict[str, str], name: str) -> OwnerTag | None:
        """Return the tag if this appliance made this very object, in whatever line of jobs; else None."""
        tag = read_tag(tags, self.key, _place(scope, name))
        return tag if tag is not None and tag.appliance == self.appliance else None

    def is_this_line(self, tags: dict[str, str], scope: dict[str, str], name: str) -> bool:
        """Whether this line of jobs made the object."""
        tag = self.read(tags, scope, name)
        return tag is not None and tag.origin == self.origin


def _place(scope: dict[str, str], name: str) -> ObjectPlace:
    return ObjectPlace(scope["provider"], scope["account"], scope["region"], name)
