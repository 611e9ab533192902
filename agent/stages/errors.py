"""Errors of the stages themselves: what a command asks for and this appliance or this disk cannot give."""

from agent.errors import NeedsOperator, Permanent


class FolderUnknown(Permanent):
    """A local share or target that the configuration does not name."""

    code = "policy.folder-unknown"
    exit_code = 78
    fix = "Add the folder to the appliance's configuration, or correct the name in the job."


class CredentialIncomplete(NeedsOperator):
    """A credential lacks a part that its use needs."""

    code = "secret.incomplete"
    fix = "Give the missing part in the job's credential."
