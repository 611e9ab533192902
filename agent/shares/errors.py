"""Errors of every share: what went wrong between the agent and the place where the image lies.

Codes are the administrator's vocabulary; how a protocol's own status numbers map to them is the plug-in's
business (agent.shares.smb.status).
"""

from typing import ClassVar

from agent.errors import NeedsOperator, Permanent, Retryable


class ShareUnreachable(Retryable):
    """Nobody answers at the server's address."""

    code: ClassVar[str] = "share.unreachable"
    exit_code = 69
    fix = "Check the server's name and port, its firewall and that the file service runs."


class ShareTimeout(Retryable):
    """The server accepted a request and did not answer in time."""

    code = "share.timeout"
    fix = "Look at the load and the disks of the file server; the job goes on when it answers."


class ShareDisconnected(Retryable):
    """The server closed the connection, the session or the open file."""

    code = "share.disconnected"
    fix = "Look at the file server's log; the job goes on when it is back."


class ShareBusy(Retryable):
    """The server lacks the resources for one more request."""

    code = "share.busy"
    fix = "Lower the load on the file server; the job tries again by itself."


class LogonFailed(NeedsOperator):
    """The server refused the user name or the password, or the account itself."""

    code = "share.logon-failed"
    fix = "Correct the share's user name, domain and password; imageport does not repeat a refused logon."


class PasswordExpired(LogonFailed):
    """The password was right once, and must be changed before anything else."""

    code = "share.password-expired"
    fix = "Set a new password for the account, or let it not expire, and give the new one to the share's credential."


class AccountDisabled(LogonFailed):
    """The account may not log on: it is disabled, locked, restricted, or has expired."""

    code = "share.account-disabled"
    fix = "Let an administrator enable or unlock the account, or lift what the message says; then start again."


class ClockSkew(LogonFailed):
    """Kerberos refuses: the clocks of this machine and of the domain differ by more than five minutes."""

    code = "share.clock-skew"
    fix = "Let this machine take its time from the domain (`imageport doctor clock`), then start again."


class KdcUnreachable(Retryable):
    """No domain controller answers, so nobody can prove who he is."""

    code = "share.kdc-unreachable"
    exit_code = 69
    fix = "Let this machine reach the domain controllers (TCP and UDP 88) and find them in DNS or in krb5.conf."


class InUse(NeedsOperator):
    """Somebody has the file open in a way that excludes reading it safely."""

    code = "share.in-use"
    exit_code = 75
    fix = "Close the program (or stop the machine) that has the image open, then try again."


class ShareFull(NeedsOperator):
    """The share or the user's quota has no room left."""

    code = "share.full"
    exit_code = 73
    fix = "Free space on the share or raise the quota; the job goes on from where it stopped."


class SecurityRefused(NeedsOperator):
    """The server, or somebody on the way to it, offers less protection than the share's policy demands."""

    code = "share.security"
    exit_code = 76
    fix = (
        "Enable SMB 3.1.1 with encryption on the server, or lower this share's policy on purpose; "
        "if it worked before, look for somebody on the network path."
    )


class NotFound(Permanent):
    """There is no file of that name on the share."""

    code = "share.not-found"
    exit_code = 66
    http_status = 404
    fix = "Check the file's path below the share."


class NoSuchShare(Permanent):
    """The server has no share of that name."""

    code = "share.no-such-share"
    exit_code = 66
    http_status = 404
    fix = "Check the share's name on the server."


class NotAFile(Permanent):
    """The path leads to something that cannot be read (or listed) as was asked."""

    code = "share.not-a-file"
    exit_code = 66
    fix = "Give the path of a plain file to read, of a folder to list."


class AccessDenied(Permanent):
    """The user may not do this on the share."""

    code = "share.access-denied"
    exit_code = 77
    http_status = 403
    fix = "Give the user read permission on the share and on the file."


class FileChanged(Permanent):
    """The file is no longer the one that the job began to read."""

    code = "share.file-changed"
    fix = "Let nothing write the image during the job, then start the job again."


class AlreadyThere(Permanent):
    """A file of that name is there already, and nobody said that it may be replaced."""

    code = "share.already-there"
    exit_code = 73
    http_status = 409
    fix = "Choose another name, or say that the file may be replaced."


class WrittenLost(Retryable):
    """The server acknowledged data and has lost them since, so it lost its power or its disk."""

    code = "share.written-lost"
    exit_code = 74
    fix = "Look at the file server's log and its disks; started again, the job goes on from its last checkpoint."


class BadPath(Permanent):
    """The path is not a plain relative path below the share."""

    code = "share.bad-path"
    exit_code = 2
    http_status = 400
    fix = "Give a relative path with / between the names, without .., drive letters or streams."


class ShareRefused(Permanent):
    """The server answered with a status that imageport has no better name for."""

    code = "share.refused"
    fix = "Look the status up at the server's vendor; it is in the message."


class ShareClosed(Permanent):
    """The share was used after it had been closed."""

    code = "share.closed"
    exit_code = 70
    http_status = 500
    fix = "This is a defect of imageport: report it."


class UnknownShareKind(Permanent):
    """The job names a kind of share that this agent does not have."""

    code = "share.unknown-kind"
    exit_code = 78
    fix = "Use one of the kinds in the message, or update the appliance."
