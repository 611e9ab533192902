"""The worked examples of protocol/SPEC.md, made from fixed keys."""

import json

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
)
from protocol.ops import LocalShare, LocalTarget, UploadArgs
from protocol.sealing import SealScope
from protocol.signed import SigningKey, sign
from tests.support import protocol_world as w
from tests.support.protocol_blocks import Block, says

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


def shown() -> list[Block]:
    """Return every block that shows how a thing looks."""
    return [
        _keys(),
        _chain(),
        *(_signed(kind, layout, key) for kind, layout, key in SIGNED),
        *(_frame(to, name, frame) for to, name, frame in FRAMES),
        _seal(),
        _enrol(),
        _request(),
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
