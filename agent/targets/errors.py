"""What targets refuse or report, by cause; each maps to one thing that the administrator can do."""

from agent.errors import NeedsOperator, Permanent, Retryable


class TargetExists(Permanent):
    """An object of that name is there and `if_exists` is `fail` (or does not allow this case)."""

    code = "target.exists"
    http_status = 409
    exit_code = 73
    fix = "Choose another name, or set if_exists in the spec's [options]: resume, replace or new-version."


class NotOurs(Permanent):
    """The object carries no owner tag of this appliance: it is never overwritten or deleted."""

    code = "target.not-ours"
    http_status = 409
    exit_code = 73
    fix = "Choose another name, or delete the object by hand if nobody needs it."


class IfExistsUnsupported(Permanent):
    """This kind of target cannot do what `if_exists` asks."""

    code = "target.if-exists-unsupported"
    fix = "Use fail, resume or new-version for this target."


class SizeDiffers(Permanent):
    """The object that is there has another size than the disk."""

    code = "target.size-differs"
    fix = "Choose another name, or delete the object if nobody needs it."


class SizeUnsupported(Permanent):
    """The disk is smaller or larger than the target takes."""

    code = "target.size-unsupported"
    fix = "Choose a target that takes disks of this size."


class TargetUnavailable(Retryable):
    """The service did not answer, or answered with a passing failure."""

    code = "target.unavailable"
    exit_code = 69
    fix = "Look at the network path and the service's status page; the request is tried again by itself."


class CredentialRefused(NeedsOperator):
    """The service does not accept the credential."""

    code = "target.credential-refused"
    fix = "Check the credential (expiry, rights, its maker's clock) and order it again with --retry (API: retry_of)."


class AccessForbidden(NeedsOperator):
    """The credential is accepted but may not do this."""

    code = "target.forbidden"
    fix = "Grant the named permission on the named scope and order it again with --retry (API: retry_of)."


class TargetNotFound(Permanent):
    """A container, resource group or disk that has to be there is not."""

    code = "target.not-found"
    http_status = 404
    exit_code = 66
    fix = "Check the names in the job's target."


class QuotaExceeded(NeedsOperator):
    """The account may not have more of what the job needs."""

    code = "target.quota"
    fix = (
        "Ask the cloud for a higher quota or delete what is not needed, then order it again with --retry "
        "(API: retry_of)."
    )


class RegionUnknown(Permanent):
    """There is no such region, or it is not where the account's things are."""

    code = "target.region-unknown"
    fix = "Correct the region in the job's target."


class ClockRefused(NeedsOperator):
    """The service does not accept the time that requests are signed with, or the signature itself."""

    code = "target.clock"
    fix = (
        "Set the appliance's clock (timedatectl set-ntp true) and check the secret key, then order it again "
        "with --retry (API: retry_of)."
    )


class DiskLost(Permanent):
    """The disk that this job was writing is gone or in a state that it cannot be written in any more."""

    code = "target.disk-lost"
    fix = "Somebody deleted or changed the disk while it was written; send a new job."


class ContentDiffers(Permanent):
    """The service's own checksum of the whole disk is not the one of what was sent, though each write's was."""

    code = "target.content-differs"
    fix = (
        "Send the job again with --retry (API: retry_of), which begins anew; if it happens twice, look for a broken "
        "device on the path or ask the cloud with the request id above."
    )


class ChecksumRefused(Retryable):
    """The service found that the bytes changed on their way."""

    code = "target.checksum"
    fix = "Nothing to do unless it repeats: then look for a broken device on the network path."


class TargetRefused(Permanent):
    """The service refuses the request; trying again cannot help."""

    code = "target.refused"
    fix = "Read the service's own code and message above."


class EndpointForbidden(Permanent):
    """The appliance's configuration does not allow this endpoint, account or folder."""

    code = "target.endpoint-forbidden"
    http_status = 403
    exit_code = 77
    fix = "Add it to [policy] of the appliance's configuration if the site wants it."
