"""An appliance in miniature on the protocol's own agent-side code: it judges what was signed for it and speaks."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from protocol import inbox
from protocol.acceptor import Accept, Facts, Hold, Refuse, Verdict, judge
from protocol.clock import SignedClock
from protocol.codec import decode, encode
from protocol.enrol import EnrolAnswer, EnrolRequest, Token, proof
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
    Nack,
    Record,
    Result,
)
from protocol.sealing import SealKey
from protocol.signed import SigningKey, parse_envelope, sign
from relay.signer.authority import Effects
from relay.signer.http import Request, Response

if TYPE_CHECKING:
    from tests.support.signer_kit import Kit

TENANT = "acme"
CAPS = ("command/1", "upload/1", "cancel/1", "sweep/1", "diagnostics/1", "set-limits/1")

L = TypeVar("L", bound=Layout)


@dataclass
class Device:
    """An appliance: keys, inbox, results."""

    kit: "Kit"
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
        return self.kit.hear("inventory", self, self.inventory_env())

    def inventory_env(self) -> bytes:
        """Return a signed statement of every command that is not final."""
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
        return sign(Kind.INVENTORY, stated, self.key)

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


def _changed(layout: L, changes: dict[str, Any]) -> L:
    return msgspec.structs.replace(layout, **changes)
