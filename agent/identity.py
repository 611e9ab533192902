"""Identity: who this appliance is, as files of mode 0600 in `state_dir/identity`. No network.

| file | content |
|---|---|
| device.key | 32 raw bytes, Ed25519: signs hello, ack, result, ... |
| seal-<kid>.key | 32 raw bytes, X25519; older ones are kept, commands sealed to them may still come |
| tag.key | 32 raw bytes, HMAC key of owner tags; made here, never sent |
| root.pub | 32 raw bytes, the control plane's pinned root key |
| manifest, record | the control plane's signed envelopes, byte for byte |
| machine | /etc/machine-id of the machine that enrolled |

Keys are fsynced before the first send, so that an enrolment cut off anywhere is repeated with the same keys.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import NeedsOperator, Permanent
from agent.private import require_private
from protocol.codec import decode
from protocol.enrol import EnrolAnswer, root_fingerprint
from protocol.errors import EnrolmentRejected, ProtocolError
from protocol.keys import KeyRing
from protocol.messages import MAX_MANIFEST, MAX_STATEMENT, Record
from protocol.sealing import SealKey
from protocol.signed import SigningKey, parse_envelope

MACHINE_ID = Path("/etc/machine-id")
KEY_BYTES = 32
FOLDER = "identity"


class NotEnrolled(NeedsOperator):
    """The appliance has no record yet."""

    code = "identity.not-enrolled"
    exit_code = 78
    fix = "Run `imageport appliance enroll` with a token of `imageport token new`."


class IdentityDamaged(Permanent):
    """A file of the identity is missing, cut or belongs to another appliance."""

    code = "identity.damaged"
    exit_code = 78
    fix = "Restore the identity folder from its backup, or enrol anew: a new device key is a new appliance."


class MachineChanged(NeedsOperator):
    """The identity was made on another machine: this may be a clone of a running appliance."""

    code = "identity.machine-changed"
    exit_code = 78
    fix = (
        "Enrol this machine as an appliance of its own; two machines must never share one identity."
    )


@dataclass(frozen=True, slots=True)
class Keys:
    """The private keys of this appliance. Never printed."""

    device: SigningKey = field(repr=False)
    seals: tuple[SealKey, ...] = field(repr=False)
    tag: bytes = field(repr=False)

    @property
    def seal(self) -> SealKey:
        """The seal key to announce: the one that the record names, else the newest."""
        return self.seals[0]


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled appliance.

    Attributes:
        keys: Its private keys.
        ring: The key manifest of enrolment; the journal may hold a newer one.
        record: Who the signer says that it is.
        record_payload: The record's signed bytes: their digest begins the chain of commands.
    """

    keys: Keys
    ring: KeyRing
    record: Record
    record_payload: bytes = field(repr=False)


def make_keys(folder: Path, *, machine_id: str) -> Keys:
    """Make the keys that are missing, durably, and return all: safe to repeat after a crash anywhere.

    Raises:
        NotPrivate: The folders belong to another user, or are open to others.
    """
    for level in (
        folder.parent,
        folder,
    ):  # `parents=True` would give the state folder the umask's mode
        level.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_private(folder.parent, folder)
    device = folder / "device.key"
    if not device.exists():
        write_durable(device, SigningKey.generate().seed)
    if not (folder / "tag.key").exists():
        write_durable(folder / "tag.key", os.urandom(KEY_BYTES))
    if not list(folder.glob("seal-*.key")):
        seal = SealKey.generate()
        write_durable(folder / f"seal-{seal.kid.hex()}.key", seal.raw)
    write_durable(folder / "machine", machine_id.encode())
    return load_keys(folder)


def load_keys(folder: Path) -> Keys:
    """Read the private keys. Raises NotEnrolled, IdentityDamaged."""
    if not (folder / "device.key").exists():
        raise NotEnrolled(f"{folder} holds no device key", path=str(folder))
    seals = sorted(
        folder.glob("seal-*.key"), key=lambda path: path.stat().st_mtime_ns, reverse=True
    )
    if not seals:
        raise IdentityDamaged(f"{folder} holds no seal key", path=str(folder))
    return Keys(
        SigningKey.from_seed(_key_bytes(folder / "device.key")),
        tuple(SealKey.from_bytes(_key_bytes(path)) for path in seals),
        _key_bytes(folder / "tag.key"),
    )


def store_answer(folder: Path, answer: EnrolAnswer, *, fingerprint: str) -> Identity:
    """Check the signer's answer to an enrolment and make it durable.

    Raises:
        EnrolmentRejected: Another root than the token pins, or a record for other keys.
        ProtocolError: The manifest or the record is not authentic.
    """
    if root_fingerprint(answer.root) != fingerprint:
        raise EnrolmentRejected("the answer's root key is not the one that the token names")
    ring = KeyRing.open(answer.manifest, root=answer.root)
    record = ring.open_record(answer.record)
    keys = load_keys(folder)
    if record.device_key != keys.device.public or record.seal_key != keys.seal.public:
        raise EnrolmentRejected("the record was made for other keys than this appliance's")
    write_durable(folder / "root.pub", answer.root)
    write_durable(folder / "manifest", answer.manifest)
    write_durable(folder / "record", answer.record)  # last: an identity counts from here on
    return Identity(keys, ring, record, parse_envelope(answer.record, limit=MAX_STATEMENT).p)


def load(folder: Path, *, machine_id: str) -> Identity:
    """Read the identity of an enrolled appliance.

    Raises:
        NotEnrolled, IdentityDamaged, MachineChanged.
    """
    keys = load_keys(folder)
    if not (folder / "record").exists():
        raise NotEnrolled(f"{folder} holds keys but no record", path=str(folder))
    _check_machine(folder, machine_id)
    try:
        ring = KeyRing.open(
            _read(folder / "manifest", MAX_MANIFEST * 2), root=_key_bytes(folder / "root.pub")
        )
        payload = parse_envelope(_read(folder / "record", MAX_STATEMENT * 2), limit=MAX_STATEMENT).p
        record = decode(payload, Record, limit=MAX_STATEMENT)
    except ProtocolError as err:
        raise IdentityDamaged(f"{folder}: {err}", path=str(folder)) from err
    if record.device_key != keys.device.public:
        raise IdentityDamaged(
            f"{folder}: the record belongs to another device key", path=str(folder)
        )
    return Identity(keys, ring, record, payload)


def read_machine_id(path: Path = MACHINE_ID) -> str:
    """Return the machine's identity, "" on a machine without one."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def write_durable(path: Path, data: bytes) -> None:
    """Replace a file, mode 0600, so that after a crash it is either the old one or the new one, whole."""
    draft = path.with_name(path.name + ".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_machine(folder: Path, machine_id: str) -> None:
    path = folder / "machine"
    made_on = path.read_text(encoding="ascii").strip() if path.exists() else machine_id
    if made_on and machine_id and made_on != machine_id:
        msg = f"{folder} was made on machine {made_on[:8]}..., this is {machine_id[:8]}..."
        raise MachineChanged(msg, path=str(folder))


def _key_bytes(path: Path) -> bytes:
    data = _read(path, KEY_BYTES)
    if len(data) != KEY_BYTES:
        msg = f"{path} holds {len(data)} bytes, expected {KEY_BYTES}"
        raise IdentityDamaged(msg, path=str(path))
    return data


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as err:
        raise IdentityDamaged(f"{path}: {err.strerror}", path=str(path)) from err
    if len(data) > limit:
        raise IdentityDamaged(f"{path} is longer than {limit} bytes", path=str(path))
    return data
