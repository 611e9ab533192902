"""SignerError tree: why the signer does not do what it was asked; each class has a stable code.

SignerError                      signer.error
├── BadRequest                   signer.bad-request
│   ├── BadSpec                  signer.bad-spec
│   ├── KeyMissing               signer.idempotency-key
│   └── BodyTooLarge             signer.body-too-large
├── NotAuthenticated             signer.not-authenticated
├── Forbidden                    signer.forbidden
├── NotFound                     signer.not-found
├── MethodNotAllowed             signer.method
├── Conflict                     signer.conflict
│   ├── KeyReused                signer.idempotency-reuse
│   ├── RequestReused            signer.request-reused
│   ├── NotRetryable             signer.not-retryable
│   ├── NotRaisable              signer.not-raisable
│   ├── ApplianceRevoked         signer.appliance-revoked
│   └── ReplayRefused            signer.replay
├── NotAccepted                  signer.not-accepted
├── NoKey                        signer.no-key
├── Backlog                      signer.backlog
├── Unavailable                  signer.unavailable
├── BadConfig                    signer.config
│   └── RootKeyOnline            signer.root-key-online
└── BadStatement                 signer.bad-statement
Nothing may be signed for an appliance now: `protocol.errors.LineLocked`.
"""

from relay.errors import RelayError


class SignerError(RelayError):
    """Base of all errors of the signer."""

    code = "signer.error"
    title = "The signer refused"
    exit_code = 70
    http_status = 500


class BadRequest(SignerError):
    """The request cannot be read."""

    code = "signer.bad-request"
    title = "Bad request"
    exit_code = 65
    http_status = 400
    fix = "Correct what the message names and send it again."


class BadSpec(BadRequest):
    """The job spec is incomplete, or its arguments do not fit the op."""

    code = "signer.bad-spec"
    title = "Bad job spec"
    http_status = 422
    fix = "Correct the field that the message names; `--plan` checks a spec before it is sent."


class KeyMissing(BadRequest):
    """A request that makes something came without an Idempotency-Key."""

    code = "signer.idempotency-key"
    title = "Idempotency-Key missing"
    fix = (
        "Send an Idempotency-Key of 1 to 128 printable characters, the same one when you try again."
    )


class BodyTooLarge(BadRequest):
    """The request's body is longer than the signer reads."""

    code = "signer.body-too-large"
    title = "Body too large"
    http_status = 413
    fix = "Send less: a job spec is a few KiB."


class NotAuthenticated(SignerError):
    """The signer does not know who asks."""

    code = "signer.not-authenticated"
    title = "Unauthorized"
    exit_code = 77
    http_status = 401
    fix = (
        "Sign the request with a caller key that the signer knows (`imageport signer caller add`)."
    )


class Forbidden(SignerError):
    """The caller's role does not allow this, or it is asked for through the relay."""

    code = "signer.forbidden"
    title = "Forbidden"
    exit_code = 77
    http_status = 403
    fix = "Ask with a caller of a higher role, or on the signer's own host over its socket."


class NotFound(SignerError):
    """There is no such thing, or it belongs to another tenant."""

    code = "signer.not-found"
    title = "Not found"
    exit_code = 66
    http_status = 404
    fix = "Check the id, and that the caller belongs to its tenant."


class MethodNotAllowed(SignerError):
    """The path exists, the method does not."""

    code = "signer.method"
    title = "Method not allowed"
    exit_code = 65
    http_status = 405
    fix = "Use the method that the API describes for this path."


class Conflict(SignerError):
    """The state of things does not allow it."""

    code = "signer.conflict"
    title = "Conflict"
    exit_code = 65
    http_status = 409
    fix = "Look at the state that the message names, and decide anew."


class KeyReused(Conflict):
    """The Idempotency-Key was used for another request."""

    code = "signer.idempotency-reuse"
    title = "Idempotency-Key reused"
    http_status = 422
    fix = "Use a new Idempotency-Key for a new request."


class RequestReused(Conflict):
    """The spec's `request` id, to which its secrets are sealed, was used before."""

    code = "signer.request-reused"
    title = "Request id reused"
    fix = "Make a new random `request` id and seal the secrets to it."


class NotRetryable(Conflict):
    """`retry_of` names a command that has not failed, or that was retried before."""

    code = "signer.not-retryable"
    title = "Not retryable"
    fix = "Retry the last command of the line, after it ended without success; else order it anew."


class NotRaisable(Conflict):
    """An epoch cannot be raised for this appliance now."""

    code = "signer.not-raisable"
    title = "Epoch not raised"
    fix = "Wait until the appliance has connected and stated where it stands."


class ApplianceRevoked(Conflict):
    """The appliance was revoked; nothing is signed for it."""

    code = "signer.appliance-revoked"
    title = "Appliance revoked"
    fix = "Enrol the machine again with a new token."


class ReplayRefused(Conflict):
    """The request was signed before this appliance's orders were re-based: it may be a replay."""

    code = "signer.replay"
    title = "Possible replay"
    fix = "Sign the request again; refused still, the caller's clock is behind the signer's."


class NotAccepted(SignerError):
    """The appliance would not accept this command, so it was not signed."""

    code = "signer.not-accepted"
    title = "The appliance would refuse it"
    exit_code = 65
    http_status = 422
    fix = "See `reason`: it is the code that the appliance would refuse it with."


class NoKey(SignerError):
    """The signer holds no key that may sign this now."""

    code = "signer.no-key"
    title = "No key"
    exit_code = 78
    http_status = 503
    fix = "Publish a key manifest with a valid key of that role and put the key among the signer's."


class Backlog(SignerError):
    """Too many orders wait for this appliance."""

    code = "signer.backlog"
    title = "Backlog full"
    exit_code = 75
    http_status = 429
    retryable = True
    fix = "Wait until the appliance has taken some, or cancel."


class Unavailable(SignerError):
    """The signer cannot be reached, or stops."""

    code = "signer.unavailable"
    title = "Signer unavailable"
    exit_code = 69
    http_status = 503
    retryable = True
    fix = "Start it with `imageport signer serve`, and run this command as its user or as root."


class BadConfig(SignerError):
    """The configuration, a key file or the key manifest does not fit."""

    code = "signer.config"
    title = "Bad configuration"
    exit_code = 78
    fix = "Correct the key or file that the message names, then start the signer again."


class RootKeyOnline(BadConfig):
    """A root key lies where the signer's keys are."""

    code = "signer.root-key-online"
    title = "Root key online"
    fix = "Move the root key offline; the signer needs only its .pub file."


class BadStatement(SignerError):
    """A statement of a device that is not what it claims; it changes nothing."""

    code = "signer.bad-statement"
    title = "Bad statement"
    exit_code = 76
    http_status = 400
    fix = "Nothing: it changed nothing. If it lasts, enrol that appliance again or look who uses its name."
