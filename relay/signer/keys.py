"""The signer's keys: read once at start from files that only its user can read, chosen by role, tenant and date.

Makes and writes none (`imageport key new` does). The format is that of `appliance.keyfiles`; a contract
test holds both to it. A root key among them stops the start: it belongs offline.
"""

import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from protocol.errors import WrongKeyTenant
from protocol.keys import KeyRing
from protocol.messages import ManifestKey, Role
from protocol.sealing import SealKey
from protocol.signed import SigningKey
from relay.signer.errors import BadConfig, NoKey, RootKeyOnline

MAX_KEY_FILE = 4096
ONLINE_ROLES = ("command", "time", "record")

_Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal["imageport-key/1"]
    role: str
    id: str
    tenant: str
    public: _Hex32
    private: _Hex32 | None = None


@dataclass(frozen=True, slots=True)
class SignerKeys:
    """The private keys that this process holds. Never printed.

    Attributes:
        signing: Public key -> signing key, of the roles command, time and record.
        vault: X25519 keys that callers seal secrets to; the first one is the current one.
    """

    signing: dict[bytes, SigningKey] = field(repr=False)
    vault: tuple[SealKey, ...] = field(repr=False)

    def choose(self, ring: KeyRing, role: Role, *, tenant: str, now: int) -> "ChosenKey":
        """Return our longest-lived key that may sign for `tenant` now.

        Raises:
            NoKey: The manifest names none that we hold, or all are revoked, ended or another tenant's.
        """
        usable = [key for key in ring.manifest.keys if self._usable(key, ring, role, tenant, now)]
        if not usable:
            msg = f"no usable {role.value} key for tenant {tenant} in key manifest {ring.manifest.serial}"
            raise NoKey(msg, role=role.value, tenant=tenant, serial=ring.manifest.serial)
        best = max(usable, key=lambda key: key.exp)
        return ChosenKey(self.signing[best.pub], best.exp)

    def _usable(self, key: ManifestKey, ring: KeyRing, role: Role, tenant: str, now: int) -> bool:
        if key.role != role.value or key.revoked is not None or key.pub not in self.signing:
            return False
        try:
            ring.check_tenant(key, tenant)
        except WrongKeyTenant:
            return False
        return key.nbf <= now <= key.exp


@dataclass(frozen=True, slots=True)
class ChosenKey:
    """A key to sign with, and when it ends (ms UTC)."""

    key: SigningKey
    exp: int


def load_keys(folder: Path) -> SignerKeys:
    """Read every `*.key` file of a folder.

    Raises:
        BadConfig: A file cannot be used, is open to others, or no vault key or no command key is there.
        RootKeyOnline: One of them is a root key.
    """
    paths = sorted(folder.glob("*.key"))
    signing: dict[bytes, SigningKey] = {}
    vault: list[SealKey] = []
    roles = set()
    for path in paths:
        file = _read(path)
        roles.add(file.role)
        private = bytes.fromhex(file.private or "")
        if file.role == "vault":
            vault.append(SealKey.from_bytes(private))
        else:
            key = SigningKey.from_seed(private)
            signing[key.public] = key
    _check_complete(folder, roles)
    return SignerKeys(signing, tuple(vault))


def load_root(path: Path) -> bytes:
    """Read the root's public key.

    Raises:
        BadConfig: The file cannot be used, or is another role's.
        RootKeyOnline: It holds the private half.
    """
    file = _parse(path)
    if file.role != "root":
        msg = f"{path} holds a {file.role} key, expected the root's .pub file"
        raise BadConfig(msg)
    if file.private is not None:
        msg = f"{path} holds the private root key"
        raise RootKeyOnline(msg)
    return bytes.fromhex(file.public)


def _read(path: Path) -> _KeyFile:
    file = _parse(path)
    if file.role == "root":
        msg = f"{path} is a root key: the signer never needs it and does not start beside it"
        raise RootKeyOnline(msg)
    if file.role not in (*ONLINE_ROLES, "vault"):
        msg = f"{path} is a {file.role} key, which the signer does not use"
        raise BadConfig(msg)
    if file.private is None:
        msg = f"{path} holds no private key"
        raise BadConfig(msg)
    return file


def _parse(path: Path) -> _KeyFile:
    try:
        with path.open("rb") as handle:
            mode = os.fstat(handle.fileno()).st_mode & 0o777
            text = handle.read(MAX_KEY_FILE + 1).decode("ascii")
    except (OSError, UnicodeDecodeError) as err:
        msg = f"the key file {path} cannot be read: {type(err).__name__}"
        raise BadConfig(msg) from err
    try:
        file = msgspec.convert(tomllib.loads(text), _KeyFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as err:
        # Neither message may be shown: both can quote the file.
        msg = f"{path} is not an imageport-key/1 file ({type(err).__name__})"
        raise BadConfig(msg) from None
    if file.private is not None and mode & 0o077:
        msg = f"{path} has mode {mode:04o}: others may read this private key; expected 0600 or 0400"
        raise BadConfig(msg)
    return file


def _check_complete(folder: Path, roles: Iterable[str]) -> None:
    missing = sorted({*ONLINE_ROLES, "vault"} - set(roles))
    if missing:
        msg = f"{folder} lacks a key of the role {', '.join(missing)}"
        raise BadConfig(msg)
