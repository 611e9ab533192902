"""SMB share: the `smb` plug-in of agent.shares. Composition only; see links (recovery), file (reading), calls."""

import contextlib
from collections.abc import Callable
from typing import ClassVar, TypeVar

from agent.shares.base import FileIdentity
from agent.shares.paths import join, normalise
from agent.shares.smb import calls
from agent.shares.smb.file import SmbFile
from agent.shares.smb.link import Link, LinkFacts
from agent.shares.smb.links import Links
from agent.shares.smb.policy import SmbPolicy
from agent.shares.smb.recovery import Timing
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.untyped import LibOpen

T = TypeVar("T")


class SmbShare:
    """One SMB share, as one user, for one job. Connects on first use; nothing is shared with any other instance."""

    kind: ClassVar[str] = "smb"

    def __init__(
        self,
        ref: SmbShareRef,
        credential: SmbCredential,
        *,
        policy: SmbPolicy | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Prepare; no I/O.

        Args:
            ref: Where the share is.
            credential: Who logs on.
            policy: Protection and patience; the default is strict.
            timing: Clock and randomness, for tests.
        """
        self._ref = ref
        chosen = policy or SmbPolicy()
        self._lanes = [
            Links(ref, credential, chosen, timing or Timing()) for _ in range(chosen.connections)
        ]
        self._links = self._lanes[0]

    def connect(self) -> LinkFacts:
        """Connect now, if that has not been done, and tell what was agreed with the server."""
        return self._links.run(lambda link: link.facts, f"connecting to {self._ref}")

    def stat(self, path: str) -> FileIdentity:
        """Return the identity of a file, even while others write it."""
        return self._with(calls.open_attributes, self._full(path), calls.query_identity)

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; the empty path is the share's own folder."""
        full = self._full(path, allow_root=True)
        return self._with(calls.open_folder, full, lambda _, handle: calls.list_names(handle))

    def open_read(self, path: str) -> SmbFile:
        """Open a file so that nobody can write it while it is read."""
        full = self._full(path)
        return SmbFile(self._lanes, full, self._label(full))

    def free_space(self) -> int:
        """Return the bytes that this user may still write."""
        return self._with(calls.open_folder, self._full("", allow_root=True), calls.free_space)

    def abort(self) -> None:
        """Cut the connections; every call raises `job.cancelled` from now on."""
        for links in self._lanes:
            links.abort()

    def close(self) -> None:
        """Log off and disconnect."""
        for links in self._lanes:
            links.close()

    def _full(self, path: str, *, allow_root: bool = False) -> str:
        return join(self._ref.folder, normalise(path, allow_root=allow_root))

    def _label(self, full: str) -> str:
        return f"{self._ref}\\{full}".replace("/", "\\")

    def _with(
        self, opener: Callable[[Link, str], LibOpen], path: str, ask: Callable[[Link, LibOpen], T]
    ) -> T:
        """Open, ask, close, as one repeatable operation."""

        def operation(link: Link) -> T:
            with contextlib.closing(opener(link, path)) as handle:
                return ask(link, handle)

        return self._links.run(operation, self._label(path))


PLUGIN = SmbShare
