"""The way to an SMB share in steps that can fail one by one: name, port, logon, room, a file written, read and deleted.

Blocking. Leaves nothing behind on the share.
"""

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.errors import AgentError
from agent.shares.errors import AccessDenied
from agent.shares.smb.policy import SmbPolicy
from agent.shares.smb.ref import SmbShareRef
from agent.shares.smb.share import SmbShare
from appliance.doctor.base import Finding, failed, passed, skipped, warned
from imaging.device import read_bytes
from imaging.extent import Kind
from imaging.units import GiB, MiB

STEP = 4 * MiB
MOST = 64 * MiB
LONGEST_S = 2.0
"""A rate is measured over so many bytes, or so many seconds, whatever comes first."""

SLOW = 20 * MiB
"""Bytes a second below which a golden image of 40 GiB takes more than half an hour."""

_TAIL = 64 * MiB
"""Hole behind the probe's data."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A share that is being examined.

    Attributes:
        ref: Where it is.
        share: Not connected yet.
        policy: What the site asks of it.
        clock: Monotonic seconds.
    """

    ref: SmbShareRef
    share: SmbShare
    policy: SmbPolicy
    clock: Callable[[], float] = time.monotonic

    def steps(self) -> Iterator[Callable[[], list[Finding]]]:
        """Yield the steps; whoever runs them stops at the first that fails."""
        yield self._name
        yield self._port
        yield self._logon
        yield self._room
        yield self._write

    def _name(self) -> list[Finding]:
        title = f"name {self.ref.server}"
        try:
            found = socket.getaddrinfo(self.ref.server, self.ref.port, type=socket.SOCK_STREAM)
        except OSError as err:
            fix = "Check the server's name and this machine's DNS; Kerberos needs the full name."
            return [failed("share.name", title, f"cannot be resolved: {err.strerror}", fix=fix)]
        addresses = sorted({str(address[4][0]) for address in found})
        return [passed("share.name", title, ", ".join(addresses), addresses=addresses)]

    def _port(self) -> list[Finding]:
        title = f"port {self.ref.port}"
        try:
            place = (self.ref.server, self.ref.port)
            started = self.clock()
            socket.create_connection(place, timeout=self.policy.connect_timeout).close()
        except OSError as err:
            fix = (
                f"Let this machine reach TCP {self.ref.port} of the server: its firewall, one on the way, or a file"
                " service that does not run."
            )
            why = err.strerror or str(err)
            return [failed("share.port", title, f"cannot be reached: {why}", fix=fix)]
        taken = 1000 * (self.clock() - started)
        return [
            passed("share.port", title, f"answers in {taken:.1f} ms", connect_ms=round(taken, 1))
        ]

    def _logon(self) -> list[Finding]:
        title, policy = str(self.ref), plain(self.policy)
        try:
            facts = self.share.connect()
        except AgentError as err:
            return [failed("share.smb", title, str(err), fix=err.fix, code=err.code, policy=policy)]
        detail = (
            f"SMB {facts.dialect}, signing {facts.signing}, encryption {facts.encryption},"
            f" logon {facts.auth}"
        )
        return [passed("share.smb", title, detail, **asdict(facts), policy=policy)]

    def _room(self) -> list[Finding]:
        title = "free space"
        try:
            free = self.share.free_space()
        except AgentError as err:
            return [failed("share.free", title, str(err), fix=err.fix, code=err.code)]
        detail = f"{free / GiB:.1f} GiB"
        if free < MOST:
            fix = "Free space on the share, or raise the user's quota."
            return [failed("share.free", title, detail, fix=fix, free=free)]
        return [passed("share.free", title, detail, free=free)]

    def _write(self) -> list[Finding]:
        """Write a file of holes and data, flush and rename it, read it back, delete it."""
        title, name = (
            "a file written, flushed, renamed, read and deleted",
            f"imageport-doctor-{os.urandom(6).hex()}.tmp",
        )
        try:
            found = self._use(name)
        except AccessDenied as err:
            detail = f"refused ({err}): the share can be read only"
            fix = "Uploads need no more. To export or publish to it, let the user write there."
            return [warned("share.write", title, detail, fix=fix, code=err.code)]
        except AgentError as err:
            return [failed("share.write", title, str(err), fix=err.fix, code=err.code)]
        finally:
            with contextlib.suppress(AgentError):
                self.share.remove(name)
        return [passed("share.write", title, f"works, {name}"), *found]

    def _use(self, name: str) -> list[Finding]:
        block = os.urandom(STEP)
        journal = Path(tempfile.gettempdir(), name)  # Nobody keeps one.
        started, size = self.clock(), 0
        with self.share.create(name, job="doctor", journal=journal) as file:
            while size < MOST and self.clock() - started < LONGEST_S:
                file.write(size, block)
                size += STEP
            file.flush()
            written = size / max(self.clock() - started, 1e-6)
            file.truncate(size + _TAIL)
            file.commit()
        reader = self.share.open_read(name)
        try:
            started, done = self.clock(), 0
            while done < size and self.clock() - started < LONGEST_S:
                if read_bytes(reader, done, STEP) != block:
                    fix = (
                        "Look at the file server's disks: it returns other bytes than were written."
                    )
                    return [failed("share.bytes", "bytes read back", "differ", fix=fix)]
                done += STEP
            read = done / max(self.clock() - started, 1e-6)
            extents = list(reader.extents(0, reader.size))
        finally:
            reader.close()
        data = sum(extent.length for extent in extents if extent.kind is Kind.DATA)
        return [_sparse(data, size), _rates(read, written)]


def plain(policy: SmbPolicy) -> dict[str, str]:
    """Return what the site asks, for evidence."""
    return {
        "encryption": policy.encryption.value,
        "oldest_dialect": policy.oldest_dialect.name,
        "auth": policy.auth.value,
    }


def _sparse(data: int, size: int) -> Finding:
    title = "sparse files"
    if data < size + _TAIL // 2:
        return passed("share.sparse", title, "holes take no room and are not read")
    fix = (
        "Use a volume that has sparse files (NTFS, or Samba with `store dos attributes = yes` and extended attributes);"
        " without, every image takes its full size and is read to its end."
    )
    return warned("share.sparse", title, "holes count as data", fix=fix, data=data, size=size)


def _rates(read: float, written: float) -> Finding:
    title = "rates, one file at a time"
    detail = f"reads {read / MiB:.0f} MiB/s, writes {written / MiB:.0f} MiB/s"
    rates = {"read_bytes_s": round(read), "write_bytes_s": round(written)}
    if min(read, written) < SLOW:
        fix = "Look at the network between here and the server, and at the server's disks and load."
        return warned("share.rates", title, detail, fix=fix, **rates)
    return passed("share.rates", title, detail, **rates)


def nothing_after(finding: Finding) -> list[Finding]:
    """Return what is said of the steps behind one that failed."""
    later = ("share.name", "share.port", "share.smb", "share.free", "share.write")
    names = later[later.index(finding.id) + 1 :] if finding.id in later else ()
    return [skipped(name, "not looked at", f"{finding.id} failed") for name in names]
