"""Key files: one small TOML file a key, private ones of mode 0600, created whole or not at all, never overwritten.

Not the place where keys are used: the signer reads its own (`relay.signer.keys`), the agent has its device keys.

| key | meaning |
|---|---|
| format | "imageport-key/1" |
| role | root, command, time, record, release, caller (Ed25519) or vault (X25519) |
| id | name in the key manifest: role and the first 8 hex digits of the key id |
| tenant | whom it may sign for; "*" is every tenant |
| public | 64 hex digits |
| private | 64 hex digits; absent in a `.pub` file |
"""

import os
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from appliance.tomltext import quoted
from protocol.ids import key_id
from protocol.sealing import SealKey
from protocol.signed import SigningKey

FORMAT = "imageport-key/1"
ROLES = ("root", "command", "time", "record", "release", "caller", "vault")
MAX_BYTES = 4096
"""A key file is about 400 bytes; more is another file."""

Role = Literal["root", "command", "time", "record", "release", "caller", "vault"]
_Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_TenantText = Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z0-9-]{1,64})\Z")]

_PRIVATE_NOTE = (
    "# imageport key file. Whoever reads it can act as this key: keep it at mode 0600.\n"
)
_PUBLIC_NOTE = "# imageport public key file. It may be shown to anybody.\n"


class KeyFileError(Exception):
    """A key file that is none, belongs to another role, or is open to others; or keys that do not go together."""

    code: ClassVar[str] = "key.file"
    exit_code: ClassVar[int] = 65
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    fix: ClassVar[str] = "Name the right key file; `imageport key new` makes one."

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


class KeyFileMissing(KeyFileError):
    """A key file is not there or cannot be read."""

    code = "key.missing"
    exit_code = 66
    http_status = 404
    fix = "Check the path, and that this user may read the file."


class KeyFileNotWritten(KeyFileError):
    """A file of keys exists already, or cannot be written where it should be."""

    code = "key.not-written"
    exit_code = 73
    http_status = 409
    fix = "Name a new file or folder: what holds keys is never overwritten."


class _Fields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal["imageport-key/1"]
    role: Role
    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
    tenant: _TenantText
    public: _Hex32
    private: _Hex32 | None = None


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One key as a file holds it. `private` is None if only the public half is there."""

    role: str
    tenant: str
    public: bytes
    private: bytes | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        """The key's name in a key manifest."""
        return f"{self.role}-{key_id(self.public).hex()[:8]}"

    def signing_key(self) -> SigningKey:
        """Return the Ed25519 key; raises KeyFileError for a public file or a vault key."""
        if self.private is None or self.role == "vault":
            msg = f"{self.id} holds no private signing key"
            raise KeyFileError(msg)
        return SigningKey.from_seed(self.private)

    def public_half(self) -> "KeyFile":
        """Return the same key without its private half."""
        return KeyFile(self.role, self.tenant, self.public)


def generate(role: str, *, tenant: str) -> KeyFile:
    """Make a new key of this role from the operating system's randomness."""
    if role == "vault":
        seal = SealKey.generate()
        return KeyFile(role, tenant, seal.public, seal.raw)
    key = SigningKey.generate()
    return KeyFile(role, tenant, key.public, key.seed)


def render(key: KeyFile) -> str:
    """Return the text of a key file; with the private half if the key has one."""
    lines = [
        _PUBLIC_NOTE if key.private is None else _PRIVATE_NOTE,
        f"format = {quoted(FORMAT)}\nrole = {quoted(key.role)}\nid = {quoted(key.id)}\n",
        f"tenant = {quoted(key.tenant)}\npublic = {quoted(key.public.hex())}\n",
    ]
    if key.private is not None:
        lines.append(f"private = {quoted(key.private.hex())}\n")
    return "".join(lines)


def parse(text: str, *, where: str) -> KeyFile:
    """Read the text of a key file.

    Raises:
        KeyFileError: It is none, or its halves do not belong together. The text is never repeated.
    """
    try:
        fields = msgspec.convert(tomllib.loads(text), _Fields)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as err:
        # Neither message may be shown: both can quote the file.
        msg = f"{where} is not an {FORMAT} file ({type(err).__name__})"
        raise KeyFileError(msg) from None
    private = bytes.fromhex(fields.private) if fields.private is not None else None
    key = KeyFile(fields.role, fields.tenant, bytes.fromhex(fields.public), private)
    if private is not None and _public_of(fields.role, private) != key.public:
        msg = f"{where}: its public half does not belong to its private half"
        raise KeyFileError(msg)
    return key


def read(path: Path) -> KeyFile:
    """Read a key file; a private one must be closed to group and others.

    Raises:
        KeyFileMissing: It cannot be read.
        KeyFileError: Open to others, or no key file.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        msg = f"{path} cannot be read: {getattr(err, 'strerror', None) or err}"
        raise KeyFileMissing(msg, path=str(path)) from err
    try:
        key = parse(data.decode(), where=str(path))
    except UnicodeDecodeError as err:
        msg = f"{path} is not an {FORMAT} file (no UTF-8 text)"
        raise KeyFileError(msg, path=str(path)) from err
    if key.private is not None and mode & 0o077:
        msg = f"{path} has mode {mode:04o}: others may read this private key; expected 0600"
        raise KeyFileError(msg)
    return key


def create(path: Path, key: KeyFile) -> None:
    """Write a key file that does not exist yet: 0600 with a private half, else 0644.

    Raises:
        KeyFileNotWritten: The file exists or cannot be written.
    """
    mode = 0o644 if key.private is None else 0o600
    create_file(path, render(key).encode(), mode=mode)


def create_file(path: Path, data: bytes, *, mode: int) -> None:
    """Create a file whole and durable, or fail: temporary name, fsync, link (which never overwrites).

    Raises:
        KeyFileNotWritten: The file exists or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(temporary)
        finally:
            temporary.unlink()
        _sync_folder(path.parent)
    except FileExistsError as err:
        msg = f"{path} exists and is not overwritten"
        raise KeyFileNotWritten(msg, path=str(path)) from err
    except OSError as err:
        msg = f"{path} cannot be written: {err.strerror}"
        raise KeyFileNotWritten(msg, path=str(path)) from err


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _public_of(role: str, private: bytes) -> bytes:
    if role == "vault":
        return SealKey.from_bytes(private).public
    return SigningKey.from_seed(private).public
