"""The counter-examples of protocol/SPEC.md: one thing wrong in each, and the code that it is refused with."""

from collections.abc import Callable
from typing import Any

import msgspec

from protocol.acceptor import Head
from protocol.codec import encode
from protocol.messages import (
    Ack,
    Kind,
    Layout,
    Revocation,
)
from protocol.signed import SigningKey, seal_envelope, sign
from tests.support import protocol_world as w
from tests.support.protocol_blocks import Block
from tests.support.protocol_examples import (
    EPOCH,
    EVENT,
    FIRST,
    HEAD_1,
    NACK,
    RECEIPT,
    RELEASE,
    RESULT,
)


def _map(*pairs: tuple[str, Any]) -> bytes:
    """Encode a map with the keys in this order, twice the same if asked."""
    assert len(pairs) < 16
    return bytes([0x80 | len(pairs)]) + b"".join(encode(k) + encode(v) for k, v in pairs)


def _with(payload: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    fields = msgspec.msgpack.decode(payload)
    change(fields)
    return encode(fields)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _bomb(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def refused() -> list[Block]:
    """Return every counter-example: what it is shown to, and the code that must come out."""
    first = encode(FIRST)
    good = sign(Kind.COMMAND, FIRST, w.COMMAND)
    cases: list[tuple[str, str, str, bytes]] = [
        ("command-flipped", "judge", "protocol.bad-signature", _flip(good, len(good) - 1)),
        ("command-other-kind", "judge", "protocol.bad-signature", _as(Kind.RECEIPT, first)),
        (
            "command-by-time-key",
            "judge",
            "protocol.wrong-role",
            sign(Kind.COMMAND, FIRST, w.TIME),
        ),
        (
            "command-unknown-key",
            "judge",
            "protocol.unknown-key",
            sign(Kind.COMMAND, FIRST, w.key_of("nobody")),
        ),
        (
            "command-after-key",
            "judge",
            "protocol.key-not-valid",
            _command(exp=w.T0 + 11 * w.YEAR_MS),
        ),
        ("command-version-2", "judge", "protocol.version", _payload(first, v=2)),
        ("command-text-as-bytes", "judge", "protocol.bad-field", _payload(first, prev="A" * 44)),
        ("command-more-fields", "judge", "protocol.bad-field", _payload(first, debug=True)),
        ("command-bad-id", "judge", "protocol.bad-field", _payload(first, audience="Site_1")),
        ("command-audience", "judge", "protocol.wrong-audience", _command(audience="site-2")),
        ("command-tenant", "judge", "protocol.wrong-tenant", _command(tenant="other")),
        ("command-epoch-old", "judge", "protocol.epoch-old", _command(epoch=0)),
        ("command-epoch-ahead", "judge", "protocol.epoch-ahead", _command(epoch=2)),
        ("command-fork", "judge", "protocol.fork", _command(prev=bytes(32))),
        ("command-expired", "judge", "protocol.expired", _command(exp=w.T0 + 1)),
        ("command-unknown-op", "judge", "protocol.unknown-op", _command(op="format-disk")),
        ("command-bad-args", "judge", "protocol.bad-args", _command(args=b"\x80")),
        (
            "command-twice-a-key",
            "judge",
            "protocol.duplicate-key",
            _as(Kind.COMMAND, _map(("v", 1), ("v", 1))),
        ),
        ("command-depth-bomb", "judge", "protocol.depth", _bomb(17)),
        ("command-torn", "judge", "protocol.malformed", good[:-1]),
        ("command-and-more", "judge", "protocol.malformed", good + b"\xc0"),
        ("epoch-backwards", "judge-epoch", "protocol.bad-field", _epoch(to=1)),
        ("epoch-other-head", "judge-epoch", "protocol.epoch-cas", _epoch(head=bytes(32))),
        ("epoch-by-record-key", "judge-epoch", "protocol.wrong-role", _epoch_by(w.RECORD)),
        ("manifest-by-command-key", "manifest", "protocol.bad-signature", _manifest_by(w.COMMAND)),
        (
            "manifest-revoked",
            "judge-revoked",
            "protocol.key-revoked",
            good,
        ),
        ("receipt-other-appliance", "receipt", "protocol.wrong-audience", _receipt("site-2")),
        *_statements(),
        ("frame-unknown", "frame-to-agent", "protocol.bad-field", _map(("t", "run"))),
        ("frame-twice-a-key", "frame-to-agent", "protocol.duplicate-key", _twice()),
        ("frame-depth-bomb", "frame-to-relay", "protocol.depth", _bomb(20)),
        ("frame-away-for-days", "frame-to-agent", "protocol.bad-field", _away()),
        ("frame-4g-array", "frame-to-relay", "protocol.malformed", b"\xdd\xff\xff\xff\xff"),
        ("frame-extension", "frame-to-relay", "protocol.malformed", b"\xd4\x01\x00"),
    ]
    return [
        Block("refused", name, {"by": by, "code": code, "bytes": data.hex()})
        for name, by, code, data in cases
    ]


def _statements() -> list[tuple[str, str, str, bytes]]:
    """One refused thing of every other kind; `open <kind>` verifies and decodes."""
    wrong_role, bad_field = "protocol.wrong-role", "protocol.bad-field"
    bad_signature = "protocol.bad-signature"
    ack = Ack(epoch=1, have=1, head=HEAD_1.hash)
    return [
        ("record-by-command-key", "open record", wrong_role, _by(Kind.RECORD, w.record())),
        ("release-by-command-key", "open release", wrong_role, _by(Kind.RELEASE, RELEASE)),
        ("time-other-appliance", "time", "protocol.wrong-audience", _time("site-2")),
        ("hello-other-device", "open hello", bad_signature, _device(Kind.HELLO, w.OTHER_DEVICE)),
        ("ack-signed-as-nack", "open ack", bad_signature, sign(Kind.NACK, ack, w.DEVICE)),
        ("nack-loud-code", "open nack", bad_field, _changed(Kind.NACK, NACK, code="FORK")),
        ("inventory-no-head", "open inventory", bad_field, _changed(Kind.INVENTORY, NACK)),
        ("result-number-0", "open result", bad_field, _changed(Kind.RESULT, RESULT, n=0)),
        ("event-version-2", "open event", bad_field, _changed(Kind.EVENT, EVENT, v=2)),
    ]


def _by(kind: Kind, layout: Layout) -> bytes:
    return sign(kind, layout, w.COMMAND)


def _time(appliance: str) -> bytes:
    return sign(Kind.TIME, w.signed_time(appliance=appliance), w.TIME)


def _device(kind: Kind, key: SigningKey) -> bytes:
    return sign(kind, w.hello(), key)


def _changed(kind: Kind, layout: Layout, **changes: Any) -> bytes:
    return sign(kind, msgspec.structs.replace(layout, **changes), w.DEVICE)


def _as(kind: Kind, payload: bytes) -> bytes:
    return seal_envelope(kind, payload, w.COMMAND)


def _payload(payload: bytes, **changes: Any) -> bytes:
    return _as(Kind.COMMAND, _with(payload, lambda fields: fields.update(changes)))


def _command(**changes: Any) -> bytes:
    return sign(Kind.COMMAND, msgspec.structs.replace(FIRST, **changes), w.COMMAND)


def _epoch(**changes: Any) -> bytes:
    return sign(Kind.EPOCH, msgspec.structs.replace(EPOCH, **changes), w.COMMAND)


def _epoch_by(key: SigningKey) -> bytes:
    return sign(Kind.EPOCH, EPOCH, key)


def _manifest_by(key: SigningKey) -> bytes:
    return sign(Kind.MANIFEST, w.manifest(serial=2), key)


def _receipt(appliance: str) -> bytes:
    return sign(Kind.RECEIPT, msgspec.structs.replace(RECEIPT, appliance=appliance), w.COMMAND)


def _twice() -> bytes:
    return _map(("t", "credit"), ("n", 1), ("n", 9999))


def _away() -> bytes:
    return _map(("t", "going_away"), ("after", 86_400.0), ("spread", 0.0))


def revoked_ring() -> Any:
    """Return the ring in which the command key is revoked."""
    rows = tuple(
        msgspec.structs.replace(row, revoked=Revocation(since=w.T0, running="stop"))
        if row.id == "command-1"
        else row
        for row in w.manifest().keys
    )
    return w.ring(w.manifest(serial=2, keys=rows))


def head_for(by: str) -> Head:
    """Return the head of the appliance that a counter-example is shown to."""
    return HEAD_1 if by == "judge-epoch" else w.HEAD_0
