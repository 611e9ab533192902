"""What can be wrong with the journal itself. Each of these stops what was about to happen, nothing is lost by it."""

from agent.errors import NeedsOperator, Permanent


class JournalFull(NeedsOperator):
    """The disk under the journal is full; what was durable stays, running jobs stop."""

    code = "journal.full"
    exit_code = 75
    http_status = 507
    fix = "Free space under the agent's state folder; the agent goes on by itself, failed jobs with a retry."


class JournalUnusable(Permanent):
    """The journal's file cannot be read or written, or is not a journal."""

    code = "journal.unusable"
    exit_code = 74
    fix = "Check the disk; a journal restored from a backup must be re-based by the signer (new epoch)."


class JournalTooNew(Permanent):
    """A later release wrote this journal."""

    code = "journal.too-new"
    exit_code = 78
    fix = "Run the release that wrote it, or a later one."


class JournalInUse(Permanent):
    """Another agent runs on this state folder."""

    code = "journal.in-use"
    exit_code = 75
    fix = "Stop the other agent, or give this one a state_dir of its own."
