"""SMB references: which share, and as whom. Values only."""

from dataclasses import dataclass

from agent.secrets import Secret
from agent.shares.errors import BadPath
from agent.shares.paths import normalise

SMB_PORT = 445


@dataclass(frozen=True, slots=True)
class SmbShareRef:
    """Where a share is.

    Attributes:
        server: Host name or address, as Kerberos and the certificate of trust know it.
        share: Name of the share on the server.
        port: TCP port of the file service.
        folder: Folder below the share that every path starts from; empty for the share itself.
    """

    server: str
    share: str
    port: int = SMB_PORT
    folder: str = ""

    def __post_init__(self) -> None:
        """Refuse names that would change the meaning of the UNC path."""
        for what, name in (("server", self.server), ("share", self.share)):
            if not name or any(
                char in '\\/"' or ord(char) <= 0x20 for char in name.replace(" ", "_")
            ):
                raise BadPath(f"{name!r} is no name of a {what}", **{what: name})
        if not 0 < self.port < 65536:
            raise BadPath(f"{self.port} is no TCP port", port=self.port)
        normalise(self.folder, allow_root=True)

    @property
    def unc(self) -> str:
        r"""The share as Windows writes it, `\\server\share`."""
        return rf"\\{self.server}\{self.share}"

    def __str__(self) -> str:
        return self.unc if self.port == SMB_PORT else f"{self.unc} (port {self.port})"


@dataclass(frozen=True, slots=True)
class SmbCredential:
    """Who logs on.

    Attributes:
        username: Account name without the domain.
        password: Revealed to the logon only.
        domain: Windows domain or realm; empty for a local account.
    """

    username: str
    password: Secret
    domain: str = ""

    @property
    def principal(self) -> str:
        r"""The account as the logon takes it: `user`, `DOMAIN\user`, or `user@REALM` if the domain has a DNS name."""
        if not self.domain or "@" in self.username:
            return self.username
        if "." in self.domain:
            return f"{self.username}@{self.domain.upper()}"
        return f"{self.domain}\\{self.username}"
