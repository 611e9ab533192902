"""The signer of the protocol model: the issuer's pure core over a table of rows that survives a crash. No I/O."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from protocol.codec import decode, encode
from protocol.errors import LineLocked, ProtocolError
from protocol.ids import digest_of
from protocol.issuer import (
    Line,
    ResultStep,
    advance,
    header_for_next,
    make_time,
    mark_receipted,
    new_line,
    on_result,
    raise_epoch,
    receipt_due,
)
from protocol.messages import (
    MAX_INVENTORY,
    MAX_RESULT,
    MAX_STATEMENT,
    Ack,
    Command,
    FinalMark,
    Hello,
    Inventory,
    Kind,
    Nack,
    Receipt,
    Result,
    Revocation,
)
from protocol.ops import CancelArgs, SweepArgs
from protocol.signed import SigningKey, open_statement, seal_envelope, sign
from protocol.standing import (
    Assessment,
    OpenCommand,
    Step,
    on_ack,
    on_hello,
    on_inventory,
    on_nack,
)
from tests.support import protocol_world as w


@dataclass
class Order:
    """One command that a caller was promised: its signed copies, and how it ended ("" while open)."""

    id: bytes
    op: str
    args: bytes
    copies: list[tuple[int, int, bytes]] = field(default_factory=list)
    ended: str = ""


@dataclass
class Rows:
    """What is durable."""

    line: Line
    chain: dict[tuple[int, int], bytes]
    orders: dict[bytes, Order] = field(default_factory=dict)
    envelopes: dict[tuple[int, int], tuple[bytes, bytes]] = field(default_factory=dict)
    epoch_payload: bytes | None = None
    results: dict[bytes, Result] = field(default_factory=dict)


@dataclass
class Truth:
    """What really happened, whatever is restored: the judge's notebook."""

    signed: set[bytes] = field(default_factory=set)
    promised: set[bytes] = field(default_factory=set)
    next_id: int = 0
    alarms: int = 0


class Signer:
    """Signs, judges statements, answers for the time. `send` hands a signed thing to the relay."""

    def __init__(self, truth: Truth, send: Callable[[Kind, bytes], None]) -> None:
        line = new_line(w.record(), w.RECORD_PAYLOAD)
        self.rows = Rows(line, {(1, 0): line.head.hash})
        self.truth = truth
        self.send = send
        self.key: SigningKey = w.COMMAND
        self.manifest = w.manifest()
        self.now_ms = w.T0 + w.HOUR_MS
        self.backup: Rows = copy.deepcopy(self.rows)

    # --- orders

    def submit(self) -> bytes | None:
        """Take a job from a caller; None: refused with an error, nothing was promised."""
        return self._promise("sweep", encode(SweepArgs()))

    def cancel(self, target: bytes) -> bytes | None:
        """Take a cancel of one of the orders."""
        order = self.rows.orders[target]
        if not order.copies:
            return None
        args = CancelArgs(id=target, digest=order.copies[-1][2])
        return self._promise("cancel", encode(args))

    def _promise(self, op: str, args: bytes) -> bytes | None:
        self.truth.next_id += 1
        order = Order(self.truth.next_id.to_bytes(16), op, args)
        try:
            self._sign(order)
        except LineLocked:
            return None
        self.rows.orders[order.id] = order
        self.truth.promised.add(order.id)
        return order.id

    def _sign(self, order: Order) -> None:
        place = header_for_next(self.rows.line)
        through = receipt_due(self.rows.line)
        payload = encode(
            Command(
                v=1,
                id=order.id,
                tenant=w.TENANT,
                audience=w.APPLIANCE,
                epoch=place.epoch,
                seq=place.seq,
                prev=place.prev,
                op=order.op,
                args_v=1,
                iat=w.T0,
                exp=w.T0 + 24 * w.HOUR_MS,
                args=order.args,
                results_through=through,
            )
        )
        digest = digest_of(payload)
        self.truth.signed.add(digest)
        line = advance(self.rows.line, digest, through=through)
        self.rows.line = line
        self.rows.chain[place.epoch, place.seq] = line.head.hash
        self.rows.envelopes[place.epoch, place.seq] = (
            seal_envelope(Kind.COMMAND, payload, self.key),
            digest,
        )
        order.copies.append((place.epoch, place.seq, digest))

    def push(self) -> None:
        """Send everything of the current epoch whose result is not verified: it is idempotent."""
        line = self.rows.line
        if line.offer is not None:
            self._send_epoch()
            return
        for (epoch, _), (env, digest) in sorted(self.rows.envelopes.items()):
            if epoch == line.head.epoch and digest not in self.rows.results:
                self.send(Kind.COMMAND, env)

    def send_receipt(self) -> None:
        """Send what the appliance was not told yet."""
        through = receipt_due(self.rows.line)
        if through is None:
            return
        self.rows.line = mark_receipted(self.rows.line, through)
        receipt = Receipt(
            v=1, tenant=w.TENANT, appliance=w.APPLIANCE, journal=through.journal, n=through.n
        )
        self.send(Kind.RECEIPT, sign(Kind.RECEIPT, receipt, self.key))

    def send_manifest(self) -> None:
        """Send the current key manifest."""
        self.send(Kind.MANIFEST, sign(Kind.MANIFEST, self.manifest, w.ROOT))

    def send_time(self, nonce: bytes, link: bytes) -> bytes:
        """Answer for the time."""
        time = make_time(
            self.rows.line,
            nonce,
            now=self.now_ms,
            manifest_serial=self.manifest.serial,
            link=link,
        )
        env = sign(Kind.TIME, time, w.TIME)
        self.send(Kind.TIME, env)
        return env

    def revoke_key(self) -> None:
        """Revoke the command key in use and go on with another."""
        new = w.key_of(f"command {self.manifest.serial + 1}")
        row = w.manifest_key(f"command-{self.manifest.serial + 1}", new, "command")
        rows = tuple(
            msgspec.structs.replace(key, revoked=Revocation(since=self.now_ms, running="finish"))
            if key.role == "command"
            else key
            for key in self.manifest.keys
        )
        serial = self.manifest.serial + 1
        self.manifest = w.manifest(serial=serial, keys=(*rows, row))
        self.key = new
        self.send_manifest()

    # --- statements

    def take(self, kind: Kind, data: bytes) -> None:
        """Take one statement as the relay hands it on; what is not authentic changes nothing."""
        take = {
            Kind.HELLO: self._hello,
            Kind.ACK: self._ack,
            Kind.NACK: self._nack,
            Kind.INVENTORY: self._inventory,
            Kind.RESULT: self._result,
        }[kind]
        try:
            take(data)
        except ProtocolError:
            return

    def _chain(self, n: int) -> bytes | None:
        return self.rows.chain.get((self.rows.line.head.epoch, n))

    def _hello(self, data: bytes) -> None:
        hello = self._open(Kind.HELLO, data, Hello)
        self._act(on_hello(self.rows.line, hello, self._chain))

    def _ack(self, data: bytes) -> None:
        ack = self._open(Kind.ACK, data, Ack)
        self._act(on_ack(self.rows.line, ack, self._chain))

    def _nack(self, data: bytes) -> None:
        nack = self._open(Kind.NACK, data, Nack)
        ours = any(
            digest == nack.digest and epoch == nack.epoch and seq > nack.have
            for (epoch, seq), (_, digest) in self.rows.envelopes.items()
        )
        self._act(on_nack(self.rows.line, nack, self._chain, is_ours=ours))

    def _inventory(self, data: bytes) -> None:
        inventory = self._open(Kind.INVENTORY, data, Inventory)
        open_ = [
            OpenCommand(order.id, digest, epoch, seq)
            for order in self.rows.orders.values()
            if not order.ended
            for epoch, seq, digest in order.copies[-1:]
        ]
        found = on_inventory(self.rows.line, inventory, open_, self._chain)
        for forgotten in found.forgotten:
            self.rows.orders[forgotten].ended = "forgotten"
        self._act(found.assessment)
        for again in found.sign_again:
            self._sign(self.rows.orders[again])

    def _result(self, data: bytes) -> None:
        result = self._open(Kind.RESULT, data, Result)
        known = self.rows.results.get(result.digest)
        ours = self.rows.envelopes.get((result.epoch, result.seq), (b"", None))[1]
        step, self.rows.line = on_result(self.rows.line, result, known=known, ours=ours)
        if step is ResultStep.EQUIVOCATION:
            self.truth.alarms += 1
        if step in {ResultStep.NEW, ResultStep.LATE}:
            self.rows.results[result.digest] = result
            order = self.rows.orders.get(result.id)
            if order is not None and order.ended in {"", "forgotten"}:
                order.ended = result.status

    def _open(self, kind: Kind, data: bytes, layout: type) -> object:
        limit = {Kind.INVENTORY: MAX_INVENTORY, Kind.RESULT: MAX_RESULT}.get(kind, MAX_STATEMENT)
        return open_statement(kind, data, layout, public=w.DEVICE.public, limit=limit)[1]

    def _act(self, found: Assessment) -> None:
        self.rows.line = found.line
        if found.step is Step.REBASE:
            self._raise(found)
        elif found.step is Step.OFFERED:
            self._send_epoch()

    def _raise(self, found: Assessment) -> None:
        finals = [
            FinalMark(id=result.id, digest=digest, status=result.status)
            for digest, result in self.rows.results.items()
        ]
        _, payload, line = raise_epoch(self.rows.line, found.stated, finals)
        self.rows.line = line
        self.rows.chain[line.head.epoch, 0] = line.head.hash
        self.rows.epoch_payload = payload
        self._send_epoch()

    def _send_epoch(self) -> None:
        if self.rows.epoch_payload is not None:
            self.send(Kind.EPOCH, seal_envelope(Kind.EPOCH, self.rows.epoch_payload, self.key))

    # --- accidents

    def crash(self) -> None:
        """Lose what is not durable."""
        self.rows.line = replace(self.rows.line, checked=False)

    def save(self) -> None:
        """Make a backup."""
        self.backup = copy.deepcopy(self.rows)

    def restore(self) -> None:
        """Come back with the backup."""
        self.rows = copy.deepcopy(self.backup)
        self.crash()

    @property
    def open_orders(self) -> list[Order]:
        """Orders that have not ended."""
        return [order for order in self.rows.orders.values() if not order.ended]


def command_of(data: bytes) -> Command:
    """Decode a command's payload."""
    return decode(data, Command, limit=MAX_INVENTORY)
