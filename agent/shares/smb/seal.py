r"""SMB seal: verify and open the frames of a server before anybody believes them. Sans-I/O, knows no smbprotocol.

smbprotocol 1.17 accepts unsigned answers on signed sessions and plain ones on encrypted sessions (both shown with
a proxy), so imageport trusts only what passes here. [MS-SMB2] 2.2.1.2, 2.2.41, 3.1.4.1, 3.1.5.1.

SMB2 header (little endian)                   Transform header
 0  4 "\xfeSMB"    24  8 message id           0  4 "\xfdSMB"       36 4 original size
 4  2 64            32  8 async id, or         4 16 GCM/CCM tag      42 2 flags, 1 = encrypted
 8  4 status           4 reserved 4 tree id   20 16 nonce            44 8 session id
12  2 command       40  8 session id
14  2 credits       48 16 signature
16  4 flags         20  4 next command
"""

import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.cmac import CMAC

HEADER_SIZE = 64
TRANSFORM_SIZE = 52
TAG_SIZE = 16
CMAC_ID, GMAC_ID = 1, 2
CCM_IDS = frozenset([1, 3])
FLAG_ANSWER = 0x01
FLAG_SIGNED = 0x08

_HEADER = struct.Struct("<4sHHIHHIIQ8xQ16s")
_TRANSFORM = struct.Struct("<4s16s16sIHHQ")


class Tampered(Exception):
    """A frame is not what an honest server with our keys would send."""


@dataclass(frozen=True, slots=True)
class Head:
    """The fields of an answer's header that decide what it is."""

    status: int
    command: int
    credits: int
    flags: int
    message_id: int
    session_id: int
    signature: bytes

    @property
    def signed(self) -> bool:
        """Whether the sender claims to have signed it."""
        return bool(self.flags & FLAG_SIGNED)


def parse_head(message: memoryview) -> Head:
    """Read the header of one plain answer.

    Raises:
        Tampered: No header, a request, or a chain of answers (we never ask for one).
    """
    if len(message) < HEADER_SIZE:
        raise Tampered(f"a frame of {len(message)} bytes, a header has {HEADER_SIZE}")
    (
        magic,
        size,
        _,
        status,
        command,
        granted,
        flags,
        following,
        message_id,
        session_id,
        signature,
    ) = _HEADER.unpack_from(message)
    if magic != b"\xfeSMB" or size != HEADER_SIZE:
        raise Tampered("a frame without an SMB2 header")
    if not flags & FLAG_ANSWER or following:
        raise Tampered("a request or a chain of answers where one answer was expected")
    return Head(status, command, granted, flags, message_id, session_id, signature)


def is_sealed(frame: memoryview) -> bool:
    """Whether the frame claims to be encrypted."""
    return bytes(frame[:4]) == b"\xfdSMB"


def open_sealed(frame: memoryview, *, key: bytes, cipher_id: int, session_id: int) -> memoryview:
    """Decrypt a frame and return the message in it.

    Raises:
        Tampered: Another session's frame, a wrong length, or the tag does not fit.
    """
    if len(frame) < TRANSFORM_SIZE + HEADER_SIZE:
        raise Tampered(f"an encrypted frame of {len(frame)} bytes")
    _, tag, nonce, size, _, flags, owner = _TRANSFORM.unpack_from(frame)
    if flags != 1 or owner != session_id or size != len(frame) - TRANSFORM_SIZE:
        raise Tampered("an encrypted frame whose header does not fit the session or its length")
    aad, text = frame[20:TRANSFORM_SIZE], frame[TRANSFORM_SIZE:]
    try:
        if cipher_id in CCM_IDS:
            return memoryview(AESCCM(key).decrypt(nonce[:11], bytes(text) + tag, bytes(aad)))
        opener = Cipher(algorithms.AES(key), modes.GCM(nonce[:12], tag)).decryptor()
        opener.authenticate_additional_data(aad)
        plain = opener.update(text)
        opener.finalize()
    except InvalidTag as err:
        raise Tampered("an encrypted frame that was altered on the way") from err
    return memoryview(plain)


def verify_signature(message: memoryview, head: Head, *, key: bytes, algorithm: int) -> None:
    """Check the signature of a plain answer; the signature field is zeroed in place ([MS-SMB2] 3.1.5.1).

    Raises:
        Tampered: It is not signed, or the signature does not fit.
    """
    if not head.signed:
        raise Tampered("an unsigned answer on a session that must be signed")
    message[48:HEADER_SIZE] = bytes(TAG_SIZE)
    expected = _signature(message, head.message_id, key=key, algorithm=algorithm)
    if not hmac.compare_digest(expected, head.signature):
        raise Tampered("an answer whose signature does not fit")


def _signature(message: memoryview, message_id: int, *, key: bytes, algorithm: int) -> bytes:
    """Return the signature of a server's answer (role bit 1 in the GMAC nonce)."""
    if algorithm == GMAC_ID:
        nonce = message_id.to_bytes(8, "little") + (1).to_bytes(4, "little")
        signer = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
        signer.authenticate_additional_data(message)
        signer.finalize()
        return signer.tag
    mac = CMAC(algorithms.AES(key))
    mac.update(bytes(message))
    return mac.finalize()
