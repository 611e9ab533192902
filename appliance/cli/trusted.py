"""Whose signature counts: the key manifest and an appliance's record, verified from the pinned root.

The relay hands both out; it can withhold them, and forge neither. The newest that was ever seen is kept in
`records_dir`, so that a relay cannot lead back to an older one: to a key that was revoked since, or a device that was
replaced since.
"""

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.cli.evidence import BadEvidence
from protocol.errors import ManifestRollback, ProtocolError
from protocol.ids import IdText
from protocol.keys import KeyRing
from protocol.messages import Record

MANIFEST = ".manifest"


@dataclass(frozen=True, slots=True)
class Trust:
    """What one client believes of one tenant's keys.

    Attributes:
        tenant: Whose appliances these are.
        root: Raw public root key.
        folder: Where the newest ones are kept, one file an appliance; None: nowhere.
    """

    tenant: str
    root: bytes
    folder: Path | None

    def ring(self, offered: bytes) -> KeyRing:
        """Return the keys of the manifest that the relay offers, or of a newer one that was seen before.

        Raises:
            BadEvidence: It is not the root's, or it is another one of the same serial.
        """
        kept = self._kept(MANIFEST)
        try:
            seen = KeyRing.open(kept, root=self.root) if kept else None
        except ProtocolError as err:
            msg = f"{self.folder}/{MANIFEST} is not the root's: {err}"
            raise BadEvidence(msg) from err
        try:
            ring = KeyRing.open(offered, root=self.root, trusted=seen)
        except ManifestRollback as err:
            if seen is None or err.fields["offered"] == err.fields["trusted"]:
                raise BadEvidence("there are two key manifests of one serial") from err
            return seen
        except ProtocolError as err:
            msg = f"the relay's key manifest is not proven: {err}"
            raise BadEvidence(msg) from err
        if offered != kept:
            self._keep(MANIFEST, offered)
        return ring

    def record(self, ring: KeyRing, appliance: str, offered: bytes) -> Record:
        """Return the record that the relay offers, or a newer one that was seen before.

        Raises:
            BadEvidence: It is not signed by the ring's record key, names somebody else, or is another one of the same
                serial.
        """
        try:
            msgspec.convert(appliance, IdText)  # the relay's word, and it becomes a file's name
        except msgspec.ValidationError as err:
            msg = f"{appliance!r} is no appliance's name"
            raise BadEvidence(msg) from err
        record = self._open(ring, appliance, offered)
        kept = self._kept(appliance)
        seen = None
        with contextlib.suppress(BadEvidence):  # its record key was revoked since: it has no say
            seen = self._open(ring, appliance, kept) if kept else None
        if seen is not None and seen.serial > record.serial:
            return seen
        if seen is not None and seen.serial == record.serial and seen != record:
            msg = f"there are two records of {appliance} with serial {record.serial}"
            raise BadEvidence(msg)
        if offered != kept:
            self._keep(appliance, offered)
        return record

    def _open(self, ring: KeyRing, appliance: str, envelope: bytes) -> Record:
        try:
            record = ring.open_record(envelope)
        except ProtocolError as err:
            msg = f"the record of {appliance} is not proven: {err}"
            raise BadEvidence(msg) from err
        if (record.tenant, record.id) != (self.tenant, appliance):
            msg = f"the record of {appliance} is one of {record.tenant}/{record.id}"
            raise BadEvidence(msg)
        return record

    def _kept(self, name: str) -> bytes | None:
        if self.folder is None:
            return None
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as err:
            msg = f"{self.folder / name} cannot be read: {err.strerror}"
            raise BadEvidence(msg, path=str(self.folder / name)) from err

    def _keep(self, name: str, envelope: bytes) -> None:
        """Keep it, if this user may write there; what is shown now was verified either way."""
        if self.folder is None:
            return
        draft = self.folder / f".{name.lstrip('.')}.{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            try:
                draft.write_bytes(envelope)
                draft.replace(self.folder / name)
            finally:
                draft.unlink(missing_ok=True)
