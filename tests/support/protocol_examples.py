"""The worked examples of protocol/SPEC.md, made from fixed keys; and how they get into the page.

`python -m tests.support.protocol_examples` writes the page's example blocks anew. A block's first line names it:
"```example <name>" (what it says must come out) or "```refused <name>" (the code must come out).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from protocol.acceptor import Head
from protocol.caller import sign_request
from protocol.codec import encode
from protocol.enrol import EnrolRequest, proof
from protocol.frames import (
    Challenge,
    CommandFrame,
    Credit,
    Fetch,
    Frame,
    GoingAway,
    HelloFrame,
    Stored,
    TimeFrame,
    TimeRequest,
    Welcome,
    frame_bytes,
)
from protocol.ids import digest_of
from protocol.jobs import EventBody, Progress, State
from protocol.messages import (
    Ack,
    Epoch,
    Event,
    FinalMark,
    Inventory,
    InventoryItem,
    Kind,
    Layout,
    Nack,
    Output,
    Receipt,
    Release,
    Result,
    ResultsThrough,
    Revocation,
)
from protocol.ops import LocalShare, LocalTarget, UploadArgs
from protocol.sealing import SealScope
from protocol.signed import SigningKey, seal_envelope, sign
from tests.support import protocol_world as w

PAGE = Path(__file__).resolve().parents[2] / "protocol" / "SPEC.md"
_FENCE = re.compile(r"^```(example|refused) ([a-z0-9-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block: ordered `key: value` lines; long values go on in lines that begin with two spaces."""

    kind: str
    name: str
    fields: dict[str, str]

    def text(self) -> str:
        """Return the block as it stands in the page."""
        lines = [f"```{self.kind} {self.name}"]
        for key, value in self.fields.items():
            parts = [value[i : i + 108] for i in range(0, len(value), 108)] or [""]
            lines.append(f"{key}: {parts[0]}")
            lines += [f"  {part}" for part in parts[1:]]
        return "\n".join([*lines, "```"])


def parse_page(text: str) -> list[Block]:
    """Return every block of the page, as it stands there."""
    return [Block(m[1], m[2], _fields(m[3])) for m in _FENCE.finditer(text)]


def render(text: str) -> str:
    """Return the page with every block made anew; a block whose name is unknown raises KeyError."""
    made = {block.name: block for block in blocks()}
    return _FENCE.sub(lambda m: made[m[2]].text(), text)


def _fields(body: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in body.splitlines():
        if line.startswith("  "):
            fields[key] += line[2:]
        else:
            key, _, value = line.partition(": ")
            fields[key] = value
    return fields


def plain(value: Any) -> Any:
    """Return a layout as JSON takes it: bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def says(value: Any) -> str:
    """Return what a layout says, as one line of JSON in wire order."""
    return json.dumps(
        plain(msgspec.msgpack.decode(encode(value))), separators=(",", ":"), ensure_ascii=True
    )


# --- what is shown ----------------------------------------------------------------------------------------

UPLOAD = UploadArgs(
    source=LocalShare(name="golden"),
    path="win11/image.vhdx",
    target=LocalTarget(name="lab", disk="win11-2027-01"),
)
FIRST = w.command(op="upload", args=encode(UPLOAD), workflow="win11-2027-01", id=b"I" * 16)
FIRST_DIGEST = digest_of(encode(FIRST))
HEAD_1 = w.HEAD_0.after(FIRST_DIGEST)
THROUGH = ResultsThrough(journal=b"J" * 16, n=1)
RESULT = Result(
    v=1,
    tenant=w.TENANT,
    appliance=w.APPLIANCE,
    journal=b"J" * 16,
    n=1,
    id=FIRST.id,
    digest=FIRST_DIGEST,
    epoch=1,
    seq=1,
    op="upload",
    status="succeeded",
    attempt=1,
    ended=w.T0 + w.HOUR_MS,
    outputs=(Output(name="disk", type="local.disk", value={"name": "win11-2027-01"}),),
    workflow="win11-2027-01",
    started=w.T0 + 60_000,
    root="sha256:" + "ab" * 32,
)
EVENT = Event(
    v=1,
    tenant=w.TENANT,
    appliance=w.APPLIANCE,
    journal=b"J" * 16,
    id=FIRST.id,
    n=7,
    body=encode(
        EventBody(
            at=w.T0 + 90_000,
            state=State.RUNNING,
            op="upload",
            progress=Progress(attempt=1, step="copy", done=1 << 20, total=1 << 30, rate=90_000_000),
        )
    ),
)
EPOCH = Epoch(
    v=1,
    tenant=w.TENANT,
    appliance=w.APPLIANCE,
    from_=1,
    to=2,
    have=1,
    head=HEAD_1.hash,
    final=(FinalMark(id=FIRST.id, digest=FIRST_DIGEST, status="succeeded"),),
)
INVENTORY = Inventory(
    epoch=2,
    have=0,
    head=digest_of(encode(EPOCH)),
    journal=b"J" * 16,
    commands=(InventoryItem(id=FIRST.id, digest=FIRST_DIGEST, state="succeeded", n=1),),
)
RELEASE = Release(
    name="compositor",
    version="1.0.0",
    sha256=digest_of(b"bits"),
    size=4,
    min_agent="0.1.0",
    lowest_allowed="1.0.0",
)
RECEIPT = Receipt(v=1, tenant=w.TENANT, appliance=w.APPLIANCE, journal=b"J" * 16, n=1)
NACK = Nack(epoch=1, have=0, digest=digest_of(b"something"), code="protocol.fork")
SEALED_CT = (
    "0763bd707ac26fba2471437a8d32c7433381852ccc0363d5a4dc2aeba6ec2f416e29cf1ae5216276"
    "aea70a29c301ddbbebe0b455d473a20c21a7283ee108988e8203fb8ab38d"
)
"""HPKE draws a random key pair, so this one was kept; `seal_key_of("seal")` opens it."""

SIGNED: tuple[tuple[Kind, Layout, SigningKey], ...] = (
    (Kind.MANIFEST, w.manifest(), w.ROOT),
    (Kind.RECORD, w.record(), w.RECORD),
    (Kind.RELEASE, RELEASE, w.RELEASE),
    (Kind.COMMAND, FIRST, w.COMMAND),
    (Kind.EPOCH, EPOCH, w.COMMAND),
    (Kind.RECEIPT, RECEIPT, w.COMMAND),
    (Kind.TIME, w.signed_time(), w.TIME),
    (Kind.HELLO, w.hello(), w.DEVICE),
    (Kind.ACK, Ack(epoch=1, have=1, head=HEAD_1.hash), w.DEVICE),
    (Kind.NACK, NACK, w.DEVICE),
    (Kind.INVENTORY, INVENTORY, w.DEVICE),
    (Kind.RESULT, RESULT, w.DEVICE),
    (Kind.EVENT, EVENT, w.DEVICE),
)

FRAMES: tuple[tuple[str, str, Frame], ...] = (
    ("agent", "challenge", Challenge(challenge=b"C" * 32)),
    (
        "relay",
        "hello",
        HelloFrame(
            tenant=w.TENANT, appliance=w.APPLIANCE, env=sign(Kind.HELLO, w.hello(), w.DEVICE)
        ),
    ),
    ("agent", "welcome", Welcome(generation=3, results=THROUGH, manifest_serial=1)),
    ("relay", "fetch", Fetch(epoch=1, seq=1)),
    ("relay", "time-request", TimeRequest(nonce=b"N" * 16)),
    ("agent", "time", TimeFrame(env=sign(Kind.TIME, w.signed_time(), w.TIME))),
    ("agent", "command", CommandFrame(epoch=1, seq=1, env=sign(Kind.COMMAND, FIRST, w.COMMAND))),
    ("agent", "stored", Stored(results=THROUGH)),
    ("agent", "credit", Credit(n=256)),
    ("agent", "going-away", GoingAway(after=1.0, spread=10.0)),
)


def blocks() -> list[Block]:
    """Return every block that the page may show."""
    return [
        _keys(),
        _chain(),
        *(_signed(kind, layout, key) for kind, layout, key in SIGNED),
        *(_frame(to, name, frame) for to, name, frame in FRAMES),
        _seal(),
        _enrol(),
        _request(),
        *_refused(),
    ]


def _keys() -> Block:
    named = {
        "root": w.ROOT.public,
        "command": w.COMMAND.public,
        "time": w.TIME.public,
        "record": w.RECORD.public,
        "release": w.RELEASE.public,
        "device": w.DEVICE.public,
        "seal": w.SEAL.public,
    }
    return Block("example", "keys", {name: public.hex() for name, public in named.items()})


def _chain() -> Block:
    return Block(
        "example",
        "chain",
        {
            "head-0": w.HEAD_0.hash.hex(),
            "digest-1": FIRST_DIGEST.hex(),
            "head-1": HEAD_1.hash.hex(),
        },
    )


def _signed(kind: Kind, layout: Layout, key: SigningKey) -> Block:
    data = sign(kind, layout, key)
    fields = {
        "kind": kind.value,
        "says": says(layout),
        "digest": digest_of(encode(layout)).hex(),
        "bytes": data.hex(),
    }
    return Block("example", kind.value, fields)


def _frame(to: str, name: str, frame: Frame) -> Block:
    fields = {"frame-to": to, "says": says(frame), "bytes": frame_bytes(frame).hex()}
    return Block("example", f"frame-{name}", fields)


def _seal() -> Block:
    scope = SealScope(w.TENANT, w.APPLIANCE, FIRST.id, "target.credential")
    fields = {
        "scope": json.dumps([scope.tenant, scope.appliance, scope.command.hex(), scope.path]),
        "info": scope.info(w.SEAL.kid).hex(),
        "kid": w.SEAL.kid.hex(),
        "ct": SEALED_CT,
        "clear": encode({"account_key": "c2VjcmV0"}).hex(),
    }
    return Block("example", "seal", fields)


def _enrol() -> Block:
    secret, nonce = b"S" * 32, b"N" * 16
    mac = proof("tok-1", secret, w.DEVICE.public, w.SEAL.public, nonce)
    request = EnrolRequest(
        v=1,
        token="tok-1",
        device_key=w.DEVICE.public,
        seal_key=w.SEAL.public,
        nonce=nonce,
        mac=mac,
    )
    fields = {"secret": secret.hex(), "says": says(request), "bytes": encode(request).hex()}
    return Block("example", "enrol", fields)


def _request() -> Block:
    body = b'{"op":"sweep"}'
    headers = sign_request(
        w.key_of("caller"),
        method="POST",
        path="/v1/jobs",
        body=body,
        idempotency_key="k-1",
        now_ms=w.T0,
    )
    fields = {
        "caller": w.key_of("caller").public.hex(),
        "request": "POST /v1/jobs",
        "body": body.decode(),
        "headers": json.dumps(headers),
    }
    return Block("example", "request", fields)


# --- what is refused --------------------------------------------------------------------------------------


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


def _refused() -> list[Block]:
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


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
