"""RelayError tree: what the relay answers when it cannot do what was asked; each class has a stable code.

RelayError                       relay.error
├── BadRequest                   relay.bad-request
│   ├── BadCursor                relay.bad-cursor
│   ├── BadHttp                  relay.bad-http
│   └── KeyMissing               relay.idempotency-key
├── Unauthorized                 relay.unauthorized
├── Forbidden                    relay.forbidden
├── NotFound                     relay.not-found
├── MethodNotAllowed             relay.method-not-allowed
├── TooLarge                     relay.too-large
├── HeadTooLarge                 relay.head-too-large
├── TooSlow                      relay.too-slow
├── UnsupportedMedia             relay.unsupported-media
├── SeqTaken                     relay.seq-taken
├── EnvelopeQuarantined          relay.quarantined
├── KeyReused                    relay.key-reused
├── InFlight                     relay.in-flight
├── Stale                        relay.stale
├── Backlog                      relay.backlog
├── RateLimited                  relay.rate-limited
├── Busy                         relay.busy
├── NoSigner                     relay.no-signer
├── SignerAway                   relay.signer-away
├── SignerSlow                   relay.signer-slow
├── ArtifactOffset               relay.artifact-offset
├── ArtifactDigest               relay.artifact-digest
├── StoreError                   relay.store
│   ├── StoreFull                relay.store-full
│   └── StoreNewer               relay.store-newer
├── ConfigError                  relay.config
├── ClientError                  relay.client (an answer that the SDK could not use)
│   └── Unreachable              relay.unreachable
└── Internal                     relay.internal
"""

from typing import Any, ClassVar


class RelayError(Exception):
    """Base of all errors of the relay and its client.

    Attributes:
        code: Stable name of the cause; the `type` of a problem answer ends with it.
        title: What kind of problem it is, the same for every occurrence (RFC 9457).
        exit_code: sysexits number for the command line.
        http_status: Status of the answer.
        retryable: Whether the same request may succeed later without anybody acting.
        fix: What the caller can do, one sentence.
        fields: Facts of this case, part of the answer; no secret ever.
    """

    code: ClassVar[str] = "relay.error"
    title: ClassVar[str] = "The relay refused"
    exit_code: ClassVar[int] = 69
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    fix: ClassVar[str] = ""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


class BadRequest(RelayError):
    """The request cannot be understood."""

    code = "relay.bad-request"
    title = "Bad request"
    exit_code = 65
    http_status = 400
    fix = "Correct what the message names; `GET /openapi.json` describes every request."


class BadCursor(BadRequest):
    """The cursor was not given out by this relay for this list."""

    code = "relay.bad-cursor"
    title = "Unknown cursor"
    fix = "Begin again without a cursor."


class BadHttp(BadRequest):
    """The bytes are not HTTP/1.1: a bad method, header, length or chunk, or TLS on a plain port."""

    code = "relay.bad-http"
    title = "Not HTTP"
    fix = "Speak HTTP/1.1 to this port (`https://` if it has TLS); look at proxies on the way."


class KeyMissing(BadRequest):
    """A request that starts work came without an Idempotency-Key."""

    code = "relay.idempotency-key"
    title = "Idempotency-Key missing"
    fix = "Send an Idempotency-Key of 1 to 128 printable characters, the same one on every retry."


class Unauthorized(RelayError):
    """No API key, or one that this relay does not know."""

    code = "relay.unauthorized"
    title = "Unauthorized"
    exit_code = 77
    http_status = 401
    fix = "Send `Authorization: Bearer <api key>` with a key whose SHA-256 is in the relay's configuration."


class Forbidden(RelayError):
    """The API key's role does not allow this."""

    code = "relay.forbidden"
    title = "Forbidden"
    exit_code = 77
    http_status = 403
    fix = "Use an API key with the role that the message names."


class NotFound(RelayError):
    """Nothing of that name belongs to the caller's tenant."""

    code = "relay.not-found"
    title = "Not found"
    exit_code = 1
    http_status = 404
    fix = "Check the id, and that the API key belongs to its tenant."


class MethodNotAllowed(RelayError):
    """The path exists, the method does not."""

    code = "relay.method-not-allowed"
    title = "Method not allowed"
    exit_code = 70
    http_status = 405
    fix = "Use a method that the Allow header names."


class TooLarge(RelayError):
    """The body is larger than this path takes."""

    code = "relay.too-large"
    title = "Body too large"
    exit_code = 65
    http_status = 413
    fix = "Send less, or a file by chunks (`PUT /v1/artifacts`)."


class HeadTooLarge(RelayError):
    """The request's line and headers are larger than the relay takes."""

    code = "relay.head-too-large"
    title = "Headers too large"
    exit_code = 65
    http_status = 431
    fix = "Send headers of at most 8 KiB each and 64 KiB in all."


class TooSlow(RelayError):
    """The request did not come in time: a head has 15 s, a body may be silent for 30 s."""

    code = "relay.too-slow"
    title = "Request too slow"
    exit_code = 75
    http_status = 408
    retryable = True
    fix = "Send the same request again; look at the network on the way if it happens often."


class UnsupportedMedia(RelayError):
    """The body is of a type that this path does not take."""

    code = "relay.unsupported-media"
    title = "Unsupported media type"
    exit_code = 70
    http_status = 415
    fix = "Send the content type that `GET /openapi.json` names for this path."


class SeqTaken(RelayError):
    """Another command holds this number of this appliance and epoch."""

    code = "relay.seq-taken"
    title = "Sequence number taken"
    exit_code = 76
    http_status = 409
    fix = "One signer allocates the numbers of an appliance; look for a second one or a restored database."


class EnvelopeQuarantined(RelayError):
    """The appliance said that it cannot consume this very envelope; it is never offered again."""

    code = "relay.quarantined"
    title = "Envelope quarantined"
    exit_code = 76
    http_status = 409
    fix = "Sign another envelope for the same number."


class KeyReused(RelayError):
    """The Idempotency-Key was used for another body."""

    code = "relay.key-reused"
    title = "Idempotency-Key reused"
    exit_code = 65
    http_status = 422
    fix = "Make a new key for every new request; reuse one only to retry the same bytes."


class InFlight(RelayError):
    """The first request with this Idempotency-Key is still being worked on."""

    code = "relay.in-flight"
    title = "Request in flight"
    exit_code = 75
    http_status = 409
    retryable = True
    fix = "Wait a second and send the same request again."


class Stale(RelayError):
    """The relay holds a newer one of this signed thing already."""

    code = "relay.stale"
    title = "Older than what is held"
    exit_code = 76
    http_status = 409
    fix = "Nothing: the newer one counts. After a restore of the signer, sign with a higher serial."


class Backlog(RelayError):
    """Too much waits for this appliance already."""

    code = "relay.backlog"
    title = "Backlog full"
    exit_code = 75
    http_status = 429
    retryable = True
    fix = "Bring the appliance online; it takes what waits in order."


class RateLimited(RelayError):
    """More requests than this API key or address may send."""

    code = "relay.rate-limited"
    title = "Too many requests"
    exit_code = 75
    http_status = 429
    retryable = True
    fix = "Wait as long as Retry-After says."


class Busy(RelayError):
    """The relay is about to stop and takes no new connection."""

    code = "relay.busy"
    title = "Busy"
    exit_code = 75
    http_status = 503
    retryable = True
    fix = "Connect again after some seconds."


class NoSigner(RelayError):
    """This relay works without a signer: it takes finished envelopes only."""

    code = "relay.no-signer"
    title = "No signer"
    http_status = 501
    fix = "Sign the command yourself and send it to /v1/commands, or run `imageport signer serve`."


class SignerAway(RelayError):
    """The signer is not connected at the moment."""

    code = "relay.signer-away"
    title = "Signer away"
    exit_code = 75
    http_status = 503
    retryable = True
    fix = "Look at the signer's service; the relay takes it back as soon as it connects."


class SignerSlow(RelayError):
    """The signer did not answer in time; it may still have done the work."""

    code = "relay.signer-slow"
    title = "Signer did not answer"
    exit_code = 75
    http_status = 504
    retryable = True
    fix = "Send the same request again with the same Idempotency-Key."


class ArtifactOffset(RelayError):
    """The chunk does not begin where the upload stands; `received` says where it must begin."""

    code = "relay.artifact-offset"
    title = "Chunk out of place"
    exit_code = 75
    http_status = 409
    retryable = True
    fix = "Go on from `received`."


class ArtifactDigest(RelayError):
    """The bytes do not have the digest that the path names; all of them were dropped."""

    code = "relay.artifact-digest"
    title = "Digest differs"
    exit_code = 65
    http_status = 422
    fix = "Upload it again from the start."


class StoreError(RelayError):
    """The database failed; nothing of the request was kept."""

    code = "relay.store"
    title = "Store failed"
    exit_code = 74
    http_status = 503
    retryable = True
    fix = "Look at the relay's log and disk; then send the same request again."


class StoreFull(StoreError):
    """The disk under the database is full; nothing of the request was kept."""

    code = "relay.store-full"
    title = "Disk full"
    http_status = 507
    fix = "Free space under the relay's data_dir; it goes on by itself."


class StoreNewer(StoreError):
    """The database was written by a newer release."""

    code = "relay.store-newer"
    title = "Database of a newer release"
    exit_code = 78
    retryable = False
    fix = "Run the newer release, or restore the database from before the update."


class ConfigError(RelayError):
    """The configuration cannot be used."""

    code = "relay.config"
    title = "Bad configuration"
    exit_code = 78
    fix = "Correct the key or file that the message names."


class ClientError(RelayError):
    """The relay's answer was an error, or nothing that this client understands.

    `problem` is the code that the relay or the signer gave ("" if the answer was no problem document), `status` the
    HTTP status, `advice` what the other side says one can do.
    """

    code = "relay.client"
    title = "Request failed"
    fix = "See the relay's message; check that the URL is a relay's and that its release is not older."

    def __init__(
        self, message: str, *, problem: str = "", status: int = 0, fix: str = "", **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.problem = problem
        self.status = status
        self.advice = fix


class Unreachable(ClientError):
    """The relay could not be reached, or the connection broke on every attempt."""

    code = "relay.unreachable"
    title = "Relay unreachable"
    exit_code = 75
    http_status = 503
    retryable = True
    fix = "Check the address, the proxy and the CA file; `imageport doctor` tries each step."


class Internal(RelayError):
    """A defect of the relay; its log has the details under the answer's `instance`."""

    code = "relay.internal"
    title = "Internal error"
    exit_code = 70
    fix = "Report it with the `instance` of the answer."
