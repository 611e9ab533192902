"""SMB share: the `smb` plug-in of agent.shares. Composition only; see links (recovery), file (reading), calls."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from agent.shares.base import Entry, FileIdentity
from agent.shares.paths import join, normalise
from agent.shares.smb import calls, changes, opening
from agent.shares.smb.file import SmbFile
from agent.shares.smb.link import Link, LinkFacts
from agent.shares.smb.links import Links
from agent.shares.smb.listing import list_entries
from agent.shares.smb.newfile import SmbNewFile
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
        self._credential = credential
        self._policy = policy or SmbPolicy()
        self._timing = timing or Timing()
        self._lanes = [self._new_links() for _ in range(self._policy.connections)]
        self._links = self._lanes[0]
        self._writing: list[Links] = []

    def connect(self) -> LinkFacts:
        """Connect now, if that has not been done, and tell what was agreed with the server."""
        return self._links.run(lambda link: link.facts, f"connecting to {self._ref}")

    def stat(self, path: str) -> FileIdentity:
        """Return the identity of a file, even while others write it."""
        return self._with(opening.open_attributes, self._full(path), calls.query_identity)

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; the empty path is the share's own folder."""
        return [entry.name for entry in self.entries(path)]

    def entries(self, path: str) -> Sequence[Entry]:
        """Return what is in a folder, sorted by name."""
        full = self._full(path, allow_root=True)
        return self._with(opening.open_folder, full, list_entries)

    def remove(self, path: str) -> None:
        """Delete a file."""
        self._with(opening.open_for_rename, self._full(path), changes.delete)

    def open_read(self, path: str) -> SmbFile:
        """Open a file so that nobody can write it while it is read."""
        full = self._full(path)
        return SmbFile(self._lanes, full, self._label(full))

    def create(
        self,
        path: str,
        *,
        job: str,
        journal: Path,
        replace: bool = False,
        keep: bool = False,
    ) -> SmbNewFile:
        """Begin a file over a connection of its own."""
        full = self._full(path)
        links = self._new_links()
        self._writing.append(links)
        return SmbNewFile(
            links,
            full,
            self._label(full),
            job=job,
            policy=self._policy,
            journal=journal,
            replace=replace,
            keep=keep,
        )

    def free_space(self) -> int:
        """Return the bytes that this user may still write."""
        return self._with(opening.open_folder, self._full("", allow_root=True), calls.free_space)

    def abort(self) -> None:
        """Cut the connections; every call raises `job.cancelled` from now on."""
        for links in (*self._lanes, *self._writing):
            links.abort()

    def close(self) -> None:
        """Log off and disconnect."""
        for links in (*self._lanes, *self._writing):
            links.close()

    def _new_links(self) -> Links:
        return Links(self._ref, self._credential, self._policy, self._timing)

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
