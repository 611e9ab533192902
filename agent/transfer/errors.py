"""Errors of the copy engine, by what has to happen next."""

from agent.errors import Permanent


class VerifyMismatch(Permanent):
    """What the target gives back is not what was read from the source."""

    code = "transfer.verify-mismatch"
    fix = (
        "Do not use the disk: it is marked unverified, and the result names it as left behind. Send the job again with "
        "retry_of, which replaces it, or delete it by hand; if it happens twice, look at the target's storage."
    )


class SourceChanged(Permanent):
    """The image on the share is not the one that this job began with."""

    code = "job.source-changed"
    fix = "Make sure that nobody writes to the image while it is uploaded, then send a new job."
