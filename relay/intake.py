"""Where signed things enter the relay: verified as a courtesy, stored, handed on. The same for REST and for the signer.

The agent verifies everything itself; the relay looks first with the same code (protocol.acceptor, protocol.keys) so
that a mistake is answered at once to whoever made it. Without a key manifest of the tenant it only decodes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from protocol.acceptor import open_command
from protocol.codec import decode
from protocol.control import Push
from protocol.errors import BadSignature, ManifestRollback
from protocol.frames import (
    EpochFrame,
    Frame,
    ManifestFrame,
    ReceiptFrame,
    RecordFrame,
    TimeFrame,
)
from protocol.ids import key_id
from protocol.keys import KeyRing
from protocol.messages import (
    MAX_COMMAND,
    MAX_EPOCH_ORDER,
    MAX_MANIFEST,
    MAX_STATEMENT,
    Command,
    Epoch,
    Kind,
    Layout,
    Manifest,
    Receipt,
    Record,
    Time,
)
from protocol.signed import parse_envelope
from relay.errors import BadRequest, Stale
from relay.hub import Hub
from relay.store.base import EVERYWHERE, Answer, Kept, KeptKind, Store
from relay.store.base import Command as Queued

T = TypeVar("T", bound=Layout)

_LIMITS = {
    Kind.EPOCH: MAX_EPOCH_ORDER,
    Kind.RECEIPT: MAX_STATEMENT,
    Kind.TIME: MAX_STATEMENT,
    Kind.RECORD: MAX_STATEMENT,
}


class Links(Protocol):
    """The connected appliances (relay.agents)."""

    def queued(self, command: Queued) -> None:
        """A command was stored."""
        ...

    def offer(self, tenant: str, appliance: str, frame: Frame) -> None:
        """Send a frame if the appliance is connected; `*`: to every one of the tenant."""
        ...

    def renew(self, record: Record) -> None:
        """An appliance has a new record: a revoked one is disconnected."""
        ...


@dataclass(slots=True)
class Intake:
    """Accepts envelopes. `roots` are raw public root keys; empty: the signer's manifests are believed."""

    store: Store
    hub: Hub
    links: Links
    now_ms: Callable[[], int]
    roots: tuple[bytes, ...] = ()
    _rings: dict[str, KeyRing] = field(default_factory=dict)
    _records: dict[tuple[str, str], Record] = field(default_factory=dict)

    async def ring(self, tenant: str) -> KeyRing | None:
        """Return the tenant's keys, if the relay was told them."""
        if tenant not in self._rings:
            kept = await self.store.kept(tenant, EVERYWHERE, "manifest")
            if kept is None:
                return None
            self._rings[tenant] = self._open_manifest(kept.env)
        return self._rings[tenant]

    async def record(self, tenant: str, appliance: str) -> Record | None:
        """Return an appliance's record, if the relay was told it."""
        if (tenant, appliance) not in self._records:
            kept = await self.store.kept(tenant, appliance, "record")
            if kept is None:
                return None
            envelope = parse_envelope(kept.env, limit=MAX_STATEMENT)
            self._records[tenant, appliance] = decode(envelope.p, Record, limit=MAX_STATEMENT)
        return self._records[tenant, appliance]

    async def read_command(self, env: bytes, tenant: str) -> Queued:
        """Verify a command's envelope as far as possible and return the row that it makes.

        Raises:
            ProtocolError: Not a command that an appliance could accept.
            BadRequest: It names another tenant.
        """
        envelope = parse_envelope(env, limit=MAX_COMMAND)
        ring = await self.ring(tenant)
        command = (
            decode(envelope.p, Command, limit=MAX_COMMAND)
            if ring is None
            else open_command(envelope, ring)
        )
        _check_place(tenant, command.audience, command.tenant, command.audience)
        return Queued(
            tenant=command.tenant,
            appliance=command.audience,
            epoch=command.epoch,
            seq=command.seq,
            digest=envelope.digest,
            id=command.id,
            op=command.op,
            iat=command.iat,
            exp=command.exp,
            workflow=command.workflow,
            env=env,
        )

    async def add(self, row: Queued, *, actor: str, answer: Answer | None = None) -> bool:
        """Queue a command and wake its appliance; False if it was there already.

        Raises:
            SeqTaken, EnvelopeQuarantined, Backlog, StoreError.
        """
        added = await self.store.add_command(row, actor=actor, answer=answer, now=self.now_ms())
        self.links.queued(row)
        self.hub.poke(row.tenant)
        return added == "new"

    async def push(self, push: Push, *, actor: str) -> None:
        """Store what the signer pushed and hand it on.

        Raises:
            RelayError, ProtocolError: Refused; nothing was kept.
        """
        match push.kind:
            case "command":
                await self.add(await self.read_command(push.env, push.tenant), actor=actor)
            case "record":
                await self._push_record(push, actor)
            case "manifest":
                await self._push_manifest(push, actor)
            case "epoch":
                order = await self._open(push, Kind.EPOCH, Epoch)
                _check_place(push.tenant, push.appliance, order.tenant, order.appliance)
                await self._keep(push, "epoch", order.to, actor)
                self.links.offer(push.tenant, push.appliance, EpochFrame(env=push.env))
            case "receipt":
                receipt = await self._open(push, Kind.RECEIPT, Receipt)
                _check_place(push.tenant, push.appliance, receipt.tenant, receipt.appliance)
                await self._keep(push, "receipt", receipt.n, actor)
                self.links.offer(push.tenant, push.appliance, ReceiptFrame(env=push.env))
            case "time":
                time = await self._open(push, Kind.TIME, Time)
                _check_place(push.tenant, push.appliance, push.tenant, time.appliance)
                self.links.offer(push.tenant, push.appliance, TimeFrame(env=push.env))

    async def _push_record(self, push: Push, actor: str) -> None:
        record = await self._open(push, Kind.RECORD, Record)
        _check_place(push.tenant, push.appliance, record.tenant, record.id)
        await self._keep(push, "record", record.serial, actor)
        self._records[push.tenant, push.appliance] = record
        self.links.offer(push.tenant, push.appliance, RecordFrame(env=push.env))
        self.links.renew(record)

    async def _push_manifest(self, push: Push, actor: str) -> None:
        ring = self._open_manifest(push.env)
        try:
            await self._keep(push, "manifest", ring.manifest.serial, actor)
        except Stale as err:
            raise ManifestRollback(str(err), offered=ring.manifest.serial) from err
        self._rings[push.tenant] = ring
        self.links.offer(push.tenant, EVERYWHERE, ManifestFrame(env=push.env))

    async def _keep(self, push: Push, kind: KeptKind, serial: int, actor: str) -> None:
        now = self.now_ms()
        item = Kept(kind, serial, push.env, now)
        kept = await self.store.keep(push.tenant, push.appliance, item, actor=actor, now=now)
        self.hub.poke(push.tenant)
        if kept == "stale":
            raise Stale(
                f"{kind} {serial} for {push.appliance}: a newer one, or another of this number, is held",
                offered=serial,
            )

    async def _open(self, push: Push, kind: Kind, type_: type[T]) -> T:
        limit = _LIMITS[kind]
        envelope = parse_envelope(push.env, limit=limit)
        ring = await self.ring(push.tenant)
        if ring is not None:
            key = ring.key(envelope, kind, tenant=push.tenant)
            ring.check_not_revoked(key)
        return decode(envelope.p, type_, limit=limit)

    def _open_manifest(self, env: bytes) -> KeyRing:
        """Verify a manifest with the configured roots; without any, decode it as it is."""
        envelope = parse_envelope(env, limit=MAX_MANIFEST)
        if self.roots:
            for root in self.roots:
                if key_id(root) == envelope.k:
                    return KeyRing.open(env, root=root)
            raise BadSignature(
                "the key manifest is not signed by a root of this relay's configuration"
            )
        return KeyRing(b"", decode(envelope.p, Manifest, limit=MAX_MANIFEST), env)


def _check_place(tenant: str, appliance: str, found_tenant: str, found_appliance: str) -> None:
    if (tenant, appliance) != (found_tenant, found_appliance):
        raise BadRequest(
            f"signed for {found_tenant}/{found_appliance}, offered for {tenant}/{appliance}",
            expected=f"{tenant}/{appliance}",
        )
