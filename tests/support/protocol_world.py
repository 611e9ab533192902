"""One small control plane with fixed keys, and one appliance: what every protocol test is about. No I/O.

Every key comes from a seed that is its name, so each signature is the same in every run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from protocol.acceptor import Facts, Head
from protocol.clock import SignedClock
from protocol.codec import encode
from protocol.ids import digest_of
from protocol.inbox import InboxState, begin
from protocol.keys import KeyRing
from protocol.messages import (
    Command,
    Hello,
    Kind,
    Manifest,
    ManifestKey,
    Output,
    Record,
    Result,
    Time,
)
from protocol.ops import SweepArgs
from protocol.sealing import SealKey
from protocol.signed import SigningKey, seal_envelope, sign

TENANT = "acme"
APPLIANCE = "site-1"
T0 = 1_800_000_000_000
"""2027-01-15T08:00:00Z: issue time of everything here."""
HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS


def key_of(name: str) -> SigningKey:
    """Return the signing key whose seed is `name`, padded with dots to 32 bytes."""
    return SigningKey.from_seed(name.encode().ljust(32, b"."))


def seal_key_of(name: str) -> SealKey:
    """Return the seal key whose private bytes are `name`, padded with dots to 32 bytes."""
    return SealKey.from_bytes(name.encode().ljust(32, b"."))


def changed(row: Any, changes: Mapping[str, Any]) -> Any:
    return msgspec.structs.replace(row, **changes) if changes else row


ROOT = key_of("root")
COMMAND = key_of("command")
TIME = key_of("time")
RECORD = key_of("record")
RELEASE = key_of("release")
DEVICE = key_of("device")
SEAL = seal_key_of("seal")
OTHER_DEVICE = key_of("other device")


def manifest_key(name: str, key: SigningKey, role: str, **changes: Any) -> ManifestKey:
    """Return a manifest's row for a key that is valid from T0 for ten years and may sign for every tenant."""
    row = ManifestKey(
        id=name,
        pub=key.public,
        role=role,  # type: ignore[arg-type]  # a test may name a role that there is not
        tenants=("*",),
        nbf=T0,
        exp=T0 + 10 * YEAR_MS,
    )
    return changed(row, changes)


def manifest(*, serial: int = 1, **changes: Any) -> Manifest:
    """Return the key manifest of the four online roles and the release key."""
    rows = (
        manifest_key("command-1", COMMAND, "command"),
        manifest_key("time-1", TIME, "time"),
        manifest_key("record-1", RECORD, "record"),
        manifest_key("release-1", RELEASE, "release"),
    )
    return changed(Manifest(v=1, serial=serial, issued=T0, keys=rows), changes)


def ring(shown: Manifest | None = None) -> KeyRing:
    """Return the trusted ring of a manifest."""
    return KeyRing.open(sign(Kind.MANIFEST, shown or manifest(), ROOT), root=ROOT.public)


def record(**changes: Any) -> Record:
    """Return the appliance's record."""
    row = Record(
        v=1,
        tenant=TENANT,
        id=APPLIANCE,
        device_key=DEVICE.public,
        seal_key=SEAL.public,
        serial=1,
        epoch=1,
    )
    return changed(row, changes)


RECORD_PAYLOAD = encode(record())
HEAD_0 = Head(1, 0, digest_of(RECORD_PAYLOAD))


def inbox(*, journal: bytes = b"J" * 16) -> InboxState:
    """Return the state of a journal that was never used."""
    return begin(record(), RECORD_PAYLOAD, journal=journal)


def fresh_clock(now: int = T0 + HOUR_MS) -> SignedClock:
    """Return a clock that was told the time at boot second 0."""
    clock = SignedClock()
    clock.ask(b"N" * 16, boot_s=0.0)
    clock.feed(signed_time(now=now), key_exp=now + YEAR_MS, boot_s=0.0, wall_s=0.0)
    return clock


def signed_time(**changes: Any) -> Time:
    """Return the payload of a signed time."""
    row = Time(
        nonce=b"N" * 16,
        appliance=APPLIANCE,
        now=T0 + HOUR_MS,
        manifest_serial=1,
        epoch=1,
        seen=0,
        link=b"L" * 16,
    )
    return changed(row, changes)


def hello(**changes: Any) -> Hello:
    """Return the payload of a hello of a fresh appliance."""
    row = Hello(
        tenant=TENANT,
        appliance=APPLIANCE,
        challenge=b"C" * 32,
        nonce=b"N" * 16,
        link=b"",
        epoch=1,
        have=0,
        head=HEAD_0.hash,
        journal=b"J" * 16,
        results_last=0,
        confirmed=0,
        manifest_serial=1,
        seal_kid=SEAL.kid,
        caps=("command/1", "sweep/1"),
    )
    return changed(row, changes)


def command(head: Head = HEAD_0, **changes: Any) -> Command:
    """Return the command that continues `head`: a dry sweep, valid for a day."""
    row = Command(
        v=1,
        id=(head.have + 1).to_bytes(16),
        tenant=TENANT,
        audience=APPLIANCE,
        epoch=head.epoch,
        seq=head.have + 1,
        prev=head.hash,
        op="sweep",
        args_v=1,
        iat=T0,
        exp=T0 + 24 * HOUR_MS,
        args=encode(SweepArgs()),
    )
    return changed(row, changes)


def envelope(kind: Kind, payload: bytes | Any, key: SigningKey) -> bytes:
    """Sign a layout, or ready payload bytes."""
    if isinstance(payload, bytes):
        return seal_envelope(kind, payload, key)
    return sign(kind, payload, key)


def signed_command(head: Head = HEAD_0, **changes: Any) -> bytes:
    """Return the envelope of `command(...)`."""
    return sign(Kind.COMMAND, command(head, **changes), COMMAND)


@dataclass(frozen=True)
class Journal:
    """The look-ups that the acceptor may make, over plain dicts."""

    by_seq: Mapping[int, bytes] = field(default_factory=dict)
    by_id: Mapping[bytes, bytes] = field(default_factory=dict)


def facts(journal: Journal | None = None, **changes: Any) -> Facts:
    """Return the facts of a proven, unlocked appliance that has consumed nothing."""
    seen = journal or Journal()
    row = Facts(
        tenant=TENANT,
        appliance=APPLIANCE,
        ring=ring(),
        head=HEAD_0,
        clock=fresh_clock(),
        boot_s=1.0,
        proven=True,
        manifest_wanted=1,
        accept_unproven=False,
        digest_at=seen.by_seq.get,
        digest_of_id=seen.by_id.get,
        policy=lambda _command: None,
        room=True,
    )
    return replace(row, **changes)


def inbox_at(head: Head, **changes: Any) -> InboxState:
    """Return the state of a journal that stands at `head`."""
    return replace(inbox(), head=head, **changes)


def result(**changes: Any) -> Result:
    """Return the payload of a result."""
    row = Result(
        v=1,
        tenant=TENANT,
        appliance=APPLIANCE,
        journal=b"J" * 16,
        n=3,
        id=b"I" * 16,
        digest=b"d" * 32,
        epoch=1,
        seq=1,
        op="sweep",
        status="succeeded",
        attempt=1,
        ended=T0,
        outputs=(Output(name="found", type="text", value={"n": 1}),),
    )
    return changed(row, changes)
