"""Errors of the copy engine, by what has to happen next."""

from agent.errors import NeedsOperator, Permanent, Retryable


class Throttled(Retryable):
    """The service asks us to slow down; concurrency is cut before the next try."""

    code = "target.throttled"
    fix = "Nothing to do: the transfer slows down by itself. If it lasts, lower the number of parallel jobs."


class TransferStalled(NeedsOperator):
    """One request failed again and again for longer than the retry policy allows; everything else is kept."""

    code = "transfer.stalled"
    exit_code = 69
    http_status = 503
    fix = "Look at the last error and the network path to the target, then send the job again with retry_of."


class VerifyMismatch(Permanent):
    """What the target gives back is not what was read from the source."""

    code = "transfer.verify-mismatch"
    fix = "Do not use the disk. Send the job again; if it happens twice, look at the target's storage."


class SourceChanged(Permanent):
    """The image on the share is not the one that this job began with."""

    code = "job.source-changed"
    fix = "Make sure that nobody writes to the image while it is uploaded, then send a new job."
