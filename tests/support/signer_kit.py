"""A signer without sockets for tests: keys, key manifest, SQLite connection, a clock that the test moves; and a device.

`Device` is an appliance in miniature on the protocol's own agent-side code: it judges what was signed for it, keeps an
inbox, and signs what it states.
"""

import json
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from protocol import inbox
from protocol.acceptor import Accept, Facts, Hold, Refuse, Verdict, judge
from protocol.caller import sign_request
from protocol.clock import SignedClock
from protocol.codec import decode, encode
from protocol.control import Statement
from protocol.enrol import EnrolAnswer, EnrolRequest, Token, parse_token, proof
from protocol.errors import ProtocolError
from protocol.ids import digest_of, key_id
from protocol.inbox import EpochRaise, InboxState, judge_epoch
from protocol.keys import KeyRing
from protocol.messages import (
    MAX_MANIFEST,
    Ack,
    Command,
    Hello,
    Inventory,
    InventoryItem,
    Kind,
    Layout,
    Manifest,
    ManifestKey,
    Nack,
    Record,
    Result,
    Revocation,
)
from protocol.sealing import SealKey, SealScope, seal
from protocol.signed import SigningKey, parse_envelope, sign
from relay.errors import RelayError
from relay.signer import appliances, orders
from relay.signer.authority import Authority, Effects, store_manifest
from relay.signer.callers import add as add_caller
from relay.signer.handler import handle, refusal
from relay.signer.http import Request, Response
from relay.signer.keys import SignerKeys
from relay.signer.schema import migrate
from relay.signer.statements import hear

T = TypeVar("T")
L = TypeVar("L", bound=Layout)

START_MS = 1_800_000_000_000
TENANT = "acme"
CAPS = ("upload/1", "cancel/1", "sweep/1", "diagnostics/1", "set-limits/1")


def manifest_of(
    keys: dict[str, SigningKey], *, serial: int, revoked: tuple[str, ...] = ()
) -> Manifest:
    """Return a manifest that lists these keys (name `role` or `role-n`) for every tenant, valid for a year."""
    return Manifest(
        v=1,
        serial=serial,
        issued=START_MS,
        keys=tuple(
            ManifestKey(
                id=name,
                pub=key.public,
                role=name.partition("-")[0],  # type: ignore[arg-type]
                tenants=("*",),
                nbf=START_MS - 3_600_000,
                exp=START_MS + 365 * 24 * 3_600_000,
                revoked=Revocation(since=START_MS, running="stop") if name in revoked else None,
            )
            for name, key in keys.items()
        ),
    )


class Counter:
    """Randomness that never repeats and is the same in every run."""

    def __init__(self) -> None:
        self._n = 0

    def __call__(self, size: int) -> bytes:
        self._n += 1
        return digest_of(self._n.to_bytes(8, "big"))[:size].ljust(size, b"\1")


@dataclass
class Kit:
    """The signer under test."""

    conn: sqlite3.Connection
    authority: Authority
    root: SigningKey
    signing: dict[str, SigningKey]
    caller: SigningKey
    vault: SealKey
    now_ms: int = START_MS
    keys_used: int = 0
    effects: Effects = field(default_factory=Effects)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run in a transaction, as Database does."""
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            result = work(self.conn)
        except BaseException:
            self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT")
        return result

    def send(self, request: Request) -> Response:
        """Send one request and remember its effects."""
        try:
            response, self.effects = self.run(lambda conn: handle(conn, self.authority, request))
        except (RelayError, ProtocolError) as err:
            self.effects = Effects()
            return refusal(err)
        return response

    def signed(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        key: str | None = None,
        caller: SigningKey | None = None,
        at: int | None = None,
    ) -> Request:
        """Return a request of a caller, through the relay."""
        data = b"" if body is None else json.dumps(body).encode()
        self.keys_used += 1
        headers = sign_request(
            caller or self.caller,
            method=method,
            path=target,
            body=data,
            idempotency_key=key if key is not None else f"key-{self.keys_used}",
            now_ms=self.now_ms if at is None else at,
        )
        lower = {name.lower(): value for name, value in headers.items()}
        return Request(method, target, lower, data, "relay")

    def call(self, method: str, target: str, body: Any = None, **options: Any) -> Response:
        """Send a signed request through the relay's door."""
        return self.send(self.signed(method, target, body, **options))

    def local(self, method: str, target: str, body: Any = None) -> Response:
        """Send a request through the unix socket's door."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        return self.send(Request(method, target, {}, data, "local"))

    def token(self, **spec: Any) -> Token:
        """Make an enrolment token."""
        response = self.local("POST", "/v1/tokens", {"tenant": TENANT, **spec})
        assert response.status == 201, response.body
        return parse_token(json.loads(response.body)["token"])

    def enrol(self, *, name: str = "site-1", token: Token | None = None) -> "Device":
        """Enrol a new device and return it, connected once (its hello was heard)."""
        device = Device(self, SigningKey.generate(), SealKey.generate())
        device.enrol(token or self.token(), name=name)
        device.hello()
        return device

    def spec(self, device: "Device", **changes: Any) -> dict[str, Any]:
        """Return a fresh job spec."""
        self.keys_used += 1
        base = {
            "request": self.keys_used.to_bytes(16, "big").hex(),
            "tenant": TENANT,
            "appliance": device.id,
            "op": "diagnostics",
            "args_v": 1,
            "args": {"checks": []},
        }
        return {**base, **changes}

    def order(self, device: "Device", **changes: Any) -> dict[str, Any]:
        """Have a job signed and return the answer's body."""
        response = self.call("POST", "/v1/jobs", self.spec(device, **changes))
        assert response.status == 202, response.body
        return dict(json.loads(response.body))

    def hear(self, kind: Any, device: "Device", env: bytes, report: bytes = b"") -> Effects:
        """Hand a statement to the signer."""
        statement = Statement(kind=kind, tenant=TENANT, appliance=device.id, env=env, report=report)
        self.effects = self.run(lambda conn: hear(conn, self.authority, statement))
        return self.effects

    def line(self, device: "Device") -> Any:
        """Return the signer's line to a device."""
        return appliances.get(self.conn, device.id).line

    def envelope(self, job: dict[str, Any]) -> bytes:
        """Return the envelope that counts for a job, as the outbox would push it."""
        order = orders.get(self.conn, bytes.fromhex(job["id"]), tenant=None)
        return orders.envelope(self.conn, order.digest)

    def epoch_order(self, device: "Device") -> bytes:
        """Return the newest epoch order for a device."""
        row = self.conn.execute(
            "SELECT env FROM epochs WHERE appliance = ? ORDER BY epoch DESC LIMIT 1", (device.id,)
        ).fetchone()
        return bytes(row["env"])

    def restart(self) -> None:
        """Forget what only the process knows."""
        self.conn.execute("DELETE FROM checked")

    def job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Read a job as its caller would."""
        response = self.call("GET", f"/v1/jobs/{job['id']}")
        assert response.status == 200, response.body
        return dict(json.loads(response.body))


def make_kit(path: str = ":memory:") -> Kit:
    """Make a signer with all keys and one caller who may order for TENANT."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.row_factory = sqlite3.Row
    migrate(conn)
    signing = {name: SigningKey.generate() for name in ("command", "command-2", "time", "record")}
    root, vault, caller = SigningKey.generate(), SealKey.generate(), SigningKey.generate()
    ring = KeyRing.open(sign(Kind.MANIFEST, manifest_of(signing, serial=1), root), root=root.public)
    keys = SignerKeys({key.public: key for key in signing.values()}, (vault,))
    kit = Kit(
        conn, Authority(keys, ring, lambda: kit.now_ms, Counter()), root, signing, caller, vault
    )
    store_manifest(conn, ring, at=START_MS)
    add_caller(conn, caller.public, name="ci", tenant=TENANT, role="operator", at=START_MS)
    return kit


@dataclass
class Device:
    """An appliance: keys, inbox, results."""

    kit: Kit
    key: SigningKey
    seal: SealKey
    record: Record | None = None
    state: InboxState | None = None
    link: bytes = b""
    nonces: int = 0
    inbox: dict[int, Command] = field(default_factory=dict)
    ids: dict[bytes, bytes] = field(default_factory=dict)
    results: list[bytes] = field(default_factory=list)
    ended: set[bytes] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The appliance's id."""
        assert self.record is not None
        return self.record.id

    @property
    def inbox_state(self) -> InboxState:
        """The order state; enrolled devices have one."""
        assert self.state is not None
        return self.state

    def request(self, token: Token, *, name: str | None = "site-1") -> EnrolRequest:
        """Return the enrolment request that proves our keys."""
        nonce = bytes(16)
        mac = proof(token.id, token.secret, self.key.public, self.seal.public, nonce)
        return EnrolRequest(
            v=1,
            token=token.id,
            device_key=self.key.public,
            seal_key=self.seal.public,
            nonce=nonce,
            mac=mac,
            name=name,
        )

    def ask_to_enrol(self, token: Token, *, name: str | None = "site-1") -> Response:
        """Send the enrolment request."""
        body = encode(self.request(token, name=name))
        return self.kit.send(Request("POST", "/v1/enrolments", {}, body, "relay"))

    def enrol(self, token: Token, *, name: str = "site-1") -> EnrolAnswer:
        """Enrol and trust what was answered, as an appliance does."""
        response = self.ask_to_enrol(token, name=name)
        assert response.status == 200, response.body
        return self.trust(response.body)

    def trust(self, body: bytes) -> EnrolAnswer:
        """Take the signer's answer, verified against the root that it names, and begin the journal."""
        answer = decode(body, EnrolAnswer, limit=2 * MAX_MANIFEST)
        ring = KeyRing.open(answer.manifest, root=answer.root)
        self.record = ring.open_record(answer.record)
        payload = parse_envelope(answer.record, limit=65536).p
        self.state = inbox.begin(self.record, payload, journal=digest_of(self.key.public)[:16])
        return answer

    def facts(self) -> Facts:
        """Return what our acceptor knows."""
        digests = {seq: digest_of(encode(command)) for seq, command in self.inbox.items()}
        return Facts(
            tenant=TENANT,
            appliance=self.id,
            ring=self.kit.authority.ring,
            head=self.inbox_state.head,
            clock=SignedClock(floor=self.kit.now_ms),
            boot_s=0.0,
            proven=True,
            manifest_wanted=0,
            accept_unproven=True,
            digest_at=digests.get,
            digest_of_id=self.ids.get,
            policy=lambda _command: None,
            room=True,
            locked=self.inbox_state.locked,
            retry=lambda _ref: None,
        )

    def take(self, env: bytes) -> Verdict:
        """Judge an envelope and consume it if it is the next one."""
        verdict = judge(env, self.facts())
        if isinstance(verdict, Accept | Refuse):
            self.state = inbox.consume(self.inbox_state, verdict)
            self.inbox[verdict.command.seq] = verdict.command
            self.ids[verdict.command.id] = verdict.digest
        return verdict

    def take_epoch(self, env: bytes) -> None:
        """Take an epoch order; anything but success fails the test."""
        verdict = judge_epoch(env, self.inbox_state, self.facts())
        assert isinstance(verdict, EpochRaise | inbox.EpochAgain), verdict
        assert not isinstance(verdict, Hold)
        if isinstance(verdict, EpochRaise):
            self.state = verdict.state
            self.inbox.clear()

    def hello(self, **changes: Any) -> Effects:
        """Say hello and return what the signer does."""
        return self.kit.hear("hello", self, self.hello_env(**changes))

    def hello_env(self, **changes: Any) -> bytes:
        """Return a signed hello."""
        self.nonces += 1
        state = self.inbox_state
        hello = Hello(
            tenant=TENANT,
            appliance=self.id,
            challenge=bytes(32),
            nonce=self.nonces.to_bytes(16, "big"),
            link=self.link,
            epoch=state.head.epoch,
            have=state.head.have,
            head=state.head.hash,
            journal=state.journal,
            results_last=state.results_last,
            confirmed=state.confirmed,
            manifest_serial=self.kit.authority.ring.manifest.serial,
            seal_kid=key_id(self.seal.public),
            caps=CAPS,
        )
        return sign(Kind.HELLO, _changed(hello, changes), self.key)

    def ack(self) -> Effects:
        """Acknowledge the inbox."""
        return self.kit.hear("ack", self, self.ack_env())

    def ack_env(self) -> bytes:
        """Return a signed ack of the inbox."""
        head = self.inbox_state.head
        return sign(Kind.ACK, Ack(epoch=head.epoch, have=head.have, head=head.hash), self.key)

    def nack(self, digest: bytes, code: str) -> Effects:
        """Say that an envelope can never be consumed."""
        head = self.inbox_state.head
        nack = Nack(epoch=head.epoch, have=head.have, digest=digest, code=code)
        return self.kit.hear("nack", self, sign(Kind.NACK, nack, self.key))

    def inventory(self) -> Effects:
        """State every command that is not final."""
        head = self.inbox_state.head
        items = tuple(
            InventoryItem(id=job, digest=digest, state="running")
            for job, digest in self.ids.items()
            if digest not in self.ended
        )
        stated = Inventory(
            epoch=head.epoch,
            have=head.have,
            head=head.hash,
            journal=self.inbox_state.journal,
            commands=items,
        )
        return self.kit.hear("inventory", self, sign(Kind.INVENTORY, stated, self.key))

    def result_env(self, job: dict[str, Any], *, n: int | None = None, **changes: Any) -> bytes:
        """Return a signed result for a job; numbered next unless told."""
        if n is None:
            self.state, n = inbox.number_result(self.inbox_state)
        result = Result(
            v=1,
            tenant=TENANT,
            appliance=self.id,
            journal=self.inbox_state.journal,
            n=n,
            id=bytes.fromhex(job["id"]),
            digest=bytes.fromhex(job["digest"]),
            epoch=job["epoch"],
            seq=job["seq"],
            op=job.get("op", "diagnostics"),
            status="succeeded",
            attempt=1,
            ended=self.kit.now_ms,
            outputs=(),
        )
        self.ended.add(result.digest)
        return sign(Kind.RESULT, _changed(result, changes), self.key)

    def result(self, job: dict[str, Any], **changes: Any) -> Effects:
        """State a result."""
        return self.kit.hear("result", self, self.result_env(job, **changes))


def sealed_json(kit: Kit, clear: bytes, *, request: str, path: str) -> dict[str, str]:
    """Return a secret as a spec carries it: sealed to the vault key and the request."""
    sealed = seal(clear, kit.vault.public, SealScope(TENANT, "", bytes.fromhex(request), path))
    return {"kid": b64encode(sealed.kid).decode(), "ct": b64encode(sealed.ct).decode()}


def _changed(layout: L, changes: dict[str, Any]) -> L:
    return msgspec.structs.replace(layout, **changes)


__all__ = [
    "START_MS",
    "TENANT",
    "Counter",
    "Device",
    "Kit",
    "make_kit",
    "manifest_of",
    "replace",
    "sealed_json",
]
