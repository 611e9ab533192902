"""ProtocolError tree: every way a frame, a signature, an order or a transition can be wrong, each with a stable code.

ProtocolError                    protocol.error
├── FrameError                   what arrived is not a well-formed frame
│   ├── Oversized                protocol.oversized
│   ├── Malformed                protocol.malformed
│   ├── TooDeep                  protocol.depth
│   ├── DuplicateKey             protocol.duplicate-key
│   ├── BadField                 protocol.bad-field
│   └── UnknownVersion           protocol.version
├── NotAuthentic                 the signature does not make it an order or a statement
│   ├── UnknownKey               protocol.unknown-key
│   ├── WrongRole                protocol.wrong-role
│   ├── WrongKeyTenant           protocol.key-tenant
│   ├── KeyNotValid              protocol.key-not-valid
│   ├── KeyRevoked               protocol.key-revoked
│   ├── BadSignature             protocol.bad-signature
│   ├── WrongAudience            protocol.wrong-audience
│   ├── WrongTenant              protocol.wrong-tenant
│   └── ManifestRollback         protocol.manifest-rollback
├── SealError                    secret.error
│   ├── SealKeyUnknown           secret.seal-key-unknown
│   └── SealBroken               secret.open-failed
├── OutOfOrder                   a frame or event that the state machine does not allow: protocol.out-of-order
├── IllegalTransition            protocol.transition
├── TimeRejected                 protocol.time-rejected
├── LineLocked                   nothing may be signed for this appliance now: signer.line-locked
└── EnrolmentRejected            enrol.rejected
Verdicts of the acceptor (gap, fork, expired, ...) are values, not exceptions: `protocol.acceptor.Verdict`.
"""

from typing import Any, ClassVar


class ProtocolError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: Stable name of the cause; travels in nacks and results.
        exit_code: sysexits number for the command line.
        http_status: Status if the error is answered over REST.
        fix: What the administrator can do, one sentence.
        fields: Facts of this case, for logs and `--json`; no secret ever.
    """

    code: ClassVar[str] = "protocol.error"
    exit_code: ClassVar[int] = 76
    http_status: ClassVar[int] = 400
    retryable: ClassVar[bool] = False
    fix: ClassVar[str] = ""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


class FrameError(ProtocolError):
    """Bytes that are no well-formed frame."""

    code = "protocol.frame"
    fix = "Nothing was changed. If it lasts, update the older side; else somebody alters what passes (SECURITY.md)."


class Oversized(FrameError):
    """Longer than the limit of its kind; nothing of it was decoded."""

    code = "protocol.oversized"
    http_status = 413


class Malformed(FrameError):
    """Not msgpack, bytes behind the value, or a type that the wire does not use."""

    code = "protocol.malformed"


class TooDeep(FrameError):
    """Nested deeper than the wire allows."""

    code = "protocol.depth"


class DuplicateKey(FrameError):
    """A map names a key twice: two readers could understand it differently."""

    code = "protocol.duplicate-key"


class BadField(FrameError):
    """A field is missing, unknown, of the wrong type or out of its range."""

    code = "protocol.bad-field"


class UnknownVersion(FrameError):
    """A header version that this release does not speak."""

    code = "protocol.version"
    fix = "Update the older side; versions are announced in hello.caps before they are signed."


class NotAuthentic(ProtocolError):
    """A signed thing that does not count."""

    code = "protocol.not-authentic"
    exit_code = 77
    http_status = 403
    fix = "Nothing was changed. If it lasts, update the older side; else somebody alters what passes (SECURITY.md)."


class UnknownKey(NotAuthentic):
    """The key id names no key of the current key manifest."""

    code = "protocol.unknown-key"
    fix = "Publish a key manifest that holds the key, or sign with a key that the manifest holds."


class WrongRole(NotAuthentic):
    """The key may not sign this kind of thing."""

    code = "protocol.wrong-role"
    fix = (
        "Sign it with a key of the right role; `imageport key manifest` shows which key has which."
    )


class WrongKeyTenant(NotAuthentic):
    """The key may not sign for this tenant."""

    code = "protocol.key-tenant"
    fix = "List the tenant at that key in the next key manifest, or sign with a key of the tenant."


class KeyNotValid(NotAuthentic):
    """The signed dates do not lie inside the key's validity."""

    code = "protocol.key-not-valid"
    fix = "Put a key that is valid now into the next key manifest, and let the signer use it."


class KeyRevoked(NotAuthentic):
    """The key was revoked in the current key manifest."""

    code = "protocol.key-revoked"
    fix = "Order it again: the signer signs with a key that counts."


class BadSignature(NotAuthentic):
    """The signature does not belong to these bytes, this kind and this key."""

    code = "protocol.bad-signature"


class WrongAudience(NotAuthentic):
    """Signed for another appliance."""

    code = "protocol.wrong-audience"
    fix = (
        "Order it for this appliance; if nobody mixed up names, the relay misdirects (SECURITY.md)."
    )


class WrongTenant(NotAuthentic):
    """Signed for another tenant."""

    code = "protocol.wrong-tenant"
    fix = "Order it for this tenant; if nobody mixed up names, the relay misdirects (SECURITY.md)."


class ManifestRollback(NotAuthentic):
    """A key manifest older than the one already trusted, or another one of the same serial."""

    code = "protocol.manifest-rollback"
    fix = "Sign the key manifest with a serial above every earlier one."


class SealError(ProtocolError):
    """A sealed secret cannot be used."""

    code = "secret.error"
    exit_code = 77


class SealKeyUnknown(SealError):
    """Sealed to a key that this side does not hold (any more)."""

    code = "secret.seal-key-unknown"
    fix = "Send the command again; the signer seals to the appliance's current key."


class SealBroken(SealError):
    """Sealed for another appliance, command or field, or damaged."""

    code = "secret.open-failed"
    fix = "Order it again, so that the secret is sealed for this command."


class OutOfOrder(ProtocolError):
    """A frame that this state of the session does not allow."""

    code = "protocol.out-of-order"
    fix = "Update the older side; the connection is made anew by itself."


class IllegalTransition(ProtocolError):
    """A job event that its state does not allow."""

    code = "protocol.transition"
    exit_code = 70
    fix = "Report this with the support bundle (`imageport bundle`): it is a defect of imageport."


class TimeRejected(ProtocolError):
    """A signed time that does not count: unknown nonce, too slow, expired key."""

    code = "protocol.time-rejected"
    fix = "Nothing: the time is asked for again. If it lasts, the way to the signer is slow or its time key has ended."


class LineLocked(ProtocolError):
    """The signer may not sign for this appliance now; the field `reason` carries the code that says why."""

    code = "signer.line-locked"
    exit_code = 75
    http_status = 503
    retryable = True
    fix = "Let the appliance connect; the signer compares its state and goes on by itself."


class EnrolmentRejected(ProtocolError):
    """An enrolment that the signer or the appliance refuses."""

    code = "enrol.rejected"
    exit_code = 77
    http_status = 403
    fix = "Make a new token with `imageport token new` and enrol again."
