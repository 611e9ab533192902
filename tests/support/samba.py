"""A real Samba server for tests: folders that its users can reach, and shares of ours on it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from smbprotocol.ioctl import CtlCode, IOCTLFlags, SMB2IOCTLRequest
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    ShareAccess,
)

from agent.secrets import Secret
from agent.shares.smb.link import Link, establish, new_connection
from agent.shares.smb.policy import Encryption, SmbPolicy
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.share import SmbShare
from appliance.sim.samba import Samba, SambaShare, SambaUser, why_unavailable

IMPATIENT = SmbPolicy(
    connect_timeout=5.0,
    answer_timeout=20.0,
    reconnect_for=60.0,
    busy_for=0.5,
    backoff_base=0.02,
    backoff_cap=0.1,
)
"""Short pauses, generous limits: nothing fails only because the machine is busy."""

SIGNED = replace(IMPATIENT, encryption=Encryption.OFF)
HURRIED = replace(IMPATIENT, connect_timeout=1.0, answer_timeout=1.0, reconnect_for=2.0)
"""Gives up soon."""

BOTH = pytest.mark.parametrize("policy", [IMPATIENT, SIGNED], ids=["encrypted", "signed"])
"""A test of each way in which bytes are protected."""


@dataclass
class Rig:
    """A server with a share `plain` on `folder`, and every of our shares on it."""

    server: Samba
    folder: Path
    stack: ExitStack = field(repr=False)

    def credential(self, user: SambaUser | None = None) -> SmbCredential:
        """Who logs on; the first account if none is given."""
        chosen = user or self.server.user
        return SmbCredential(chosen.name, Secret(chosen.password))

    def share(
        self,
        name: str = "plain",
        *,
        policy: SmbPolicy = IMPATIENT,
        credential: SmbCredential | None = None,
        port: int | None = None,
        folder: str = "",
    ) -> SmbShare:
        """Return a share of ours; closed with the rig."""
        ref = SmbShareRef("127.0.0.1", name, port or self.server.port, folder)
        share = SmbShare(ref, credential or self.credential(), policy=policy)
        self.stack.callback(share.close)
        return share

    def write(self, name: str, data: bytes) -> Path:
        """Put a file into the share's folder, past Samba."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o666)
        return file

    @contextmanager
    def writing(self, name: str) -> Iterator[tuple[Link, Any]]:
        """Hold a file open for writing over SMB, as the program of somebody else."""
        ref = SmbShareRef("127.0.0.1", "plain", self.server.port)
        link = establish(new_connection(ref, IMPATIENT), ref, self.credential(), IMPATIENT)
        try:
            handle = Open(link.tree, name)
            handle.create(
                ImpersonationLevel.Impersonation,
                FilePipePrinterAccessMask.FILE_WRITE_DATA
                | FilePipePrinterAccessMask.FILE_WRITE_ATTRIBUTES,
                0,
                ShareAccess.FILE_SHARE_READ,
                CreateDisposition.FILE_OPEN,
                CreateOptions.FILE_NON_DIRECTORY_FILE,
            )
            yield link, handle
        finally:
            link.close()

    def mark_sparse(self, name: str) -> None:
        """Set the sparse attribute over SMB, as Windows does; without it Samba reports one full range."""
        with self.writing(name) as (link, handle):
            request = SMB2IOCTLRequest()
            request["ctl_code"] = CtlCode.FSCTL_SET_SPARSE
            request["file_id"] = handle.file_id
            request["flags"] = IOCTLFlags.SMB2_0_IOCTL_IS_FSCTL
            request["buffer"] = b"\x01"
            link.ask(request)


@contextmanager
def samba_rig(
    *,
    users: int = 1,
    shares: Mapping[str, Mapping[str, str]] | None = None,
    options: Mapping[str, str] | None = None,
    place: Path | None = None,
) -> Iterator[Rig]:
    """Run a server; skips the test by name where none can be had.

    Args:
        users: How many accounts.
        shares: Further shares on the same folder, with their smb.conf keys.
        options: Further [global] keys.
        place: Where its files lie; the system's folder for temporary files if none is given.
    """
    reason = why_unavailable()
    if reason:
        pytest.skip(reason)
    # Not tmp_path: its parents are closed to the users that smbd becomes.
    home = Path(tempfile.mkdtemp(prefix="imageport-samba-", dir=place))
    home.chmod(0o755)
    folder = home / "data"
    folder.mkdir()
    folder.chmod(0o777)
    served = [SambaShare("plain", folder)]
    served += [SambaShare(name, folder, keys) for name, keys in (shares or {}).items()]
    try:
        with (
            Samba(home / "state", served, users=users, options=options) as server,
            ExitStack() as stack,
        ):
            yield Rig(server, folder, stack)
    finally:
        shutil.rmtree(home, ignore_errors=True)
