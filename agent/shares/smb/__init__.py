"""SMB shares over smbprotocol's low-level classes; the plug-in itself is agent.shares.smb.share."""

from agent.shares.smb.policy import AuthKind, Dialect, Encryption, SmbPolicy
from agent.shares.smb.ref import SmbCredential, SmbShareRef

__all__ = ["AuthKind", "Dialect", "Encryption", "SmbCredential", "SmbPolicy", "SmbShareRef"]
