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
import itertools
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.cmac import CMAC

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_SIZE = 64
TRANSFORM_SIZE = 52
TAG_SIZE = 16
CMAC_ID, GMAC_ID = 1, 2
CCM_IDS = frozenset([1, 3])
FLAG_ANSWER = 0x01
FLAG_SIGNED = 0x08

_HEADER = struct.Struct("<4sHHIHHIIQ8xQ16s")
_TRANSFORM = struct.Struct("<4s16s16sIHHQ")
_NONCE_SIZE = 12

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, repr=False)
class Keys:
    """What protects the frames of one session. Ciphers are made once: that takes longer than to encrypt a request.

    Attributes:
        session_id: Its number.
        signing_key: For both directions.
        signing_algorithm: `CMAC_ID` or `GMAC_ID`.
        cipher_id: One of the four of [MS-SMB2] 2.2.3.1.2.
        seal_key: For what we send.
        open_key: For what the server sends.
    """

    session_id: int
    signing_key: bytes
    signing_algorithm: int
    cipher_id: int
    seal_key: bytes
    open_key: bytes

    @property
    def streams(self) -> bool:
        """Whether the cipher works piece by piece (GCM); CCM needs the whole frame at once."""
        return self.cipher_id not in CCM_IDS

    @cached_property
    def signer(self) -> AESGCM:
        """For GMAC over what lies in one piece."""
        return AESGCM(self.signing_key)

    @cached_property
    def sealer(self) -> AESGCM:
        """For what we send in one piece."""
        return AESGCM(self.seal_key)

    @cached_property
    def aes_signing(self) -> algorithms.AES:
        """For signatures over several pieces."""
        return algorithms.AES(self.signing_key)

    @cached_property
    def aes_sealing(self) -> algorithms.AES:
        """For what we send in several pieces."""
        return algorithms.AES(self.seal_key)

    @cached_property
    def aes_opening(self) -> algorithms.AES:
        """For what the server sends."""
        return algorithms.AES(self.open_key)


class Tampered(Exception):
    """A frame is not what an honest server with our keys would send."""


class Head(NamedTuple):
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


class Mac:
    """A signature being computed over the pieces of a message whose signature field is zero ([MS-SMB2] 3.1.4.1).

    Attributes:
        update: Adds the next piece.
    """

    def __init__(self, keys: Keys, message_id: int, *, is_answer: bool) -> None:
        self.update: Callable[[Any], None]
        self._gmac = self._cmac = None
        if keys.signing_algorithm == GMAC_ID:
            nonce = _gmac_nonce(message_id, is_answer=is_answer)
            self._gmac = Cipher(keys.aes_signing, modes.GCM(nonce)).encryptor()
            self.update = self._gmac.authenticate_additional_data
        else:
            self._cmac = CMAC(keys.aes_signing)
            self.update = self._cmac.update

    def finish(self) -> bytes:
        """Return the 16 bytes of the signature."""
        if self._gmac is not None:
            self._gmac.finalize()
            return self._gmac.tag
        assert self._cmac is not None
        return self._cmac.finalize()


def _gmac_nonce(message_id: int, *, is_answer: bool) -> bytes:
    return message_id.to_bytes(8, "little") + int(is_answer).to_bytes(4, "little")


def verify_signature(message: memoryview, head: Head, keys: Keys) -> None:
    """Check the signature of a plain answer; the signature field is zeroed in place ([MS-SMB2] 3.1.5.1).

    Raises:
        Tampered: It is not signed, or the signature does not fit.
    """
    mac = begin_verify(message, head, keys)
    finish_verify(mac, head)


def begin_verify(start: memoryview, head: Head, keys: Keys) -> Mac:
    """Begin to check a plain answer that arrives in pieces; `start` holds its header at least.

    Raises:
        Tampered: It claims no signature.
    """
    if not head.signed:
        raise Tampered("an unsigned answer on a session that must be signed")
    start[48:HEADER_SIZE] = bytes(TAG_SIZE)
    mac = Mac(keys, head.message_id, is_answer=True)
    mac.update(start)
    return mac


def finish_verify(mac: Mac, head: Head) -> None:
    """Raise Tampered unless the signature of what was added to `mac` is the header's."""
    if not hmac.compare_digest(mac.finish(), head.signature):
        raise Tampered("an answer whose signature does not fit")


def sign(head: bytearray, data: Buffer, keys: Keys, message_id: int) -> None:
    """Fill the signature of a request in; `data` follows `head` on the wire."""
    if not len(data) and keys.signing_algorithm == GMAC_ID:
        nonce = _gmac_nonce(message_id, is_answer=False)
        head[48:HEADER_SIZE] = keys.signer.encrypt(nonce, b"", head)
        return
    mac = Mac(keys, message_id, is_answer=False)
    mac.update(head)
    mac.update(data)
    head[48:HEADER_SIZE] = mac.finish()


# --- encryption -----------------------------------------------------------------------------------


class Opener:
    """An encrypted answer being decrypted piece by piece (GCM). Nothing of it may be believed before `finish`.

    Attributes:
        update_into: Decrypts the next piece into a buffer of the same length.
    """

    def __init__(self, start: memoryview, size: int, keys: Keys) -> None:
        """Read the transform header.

        Args:
            start: The frame's first bytes, the transform header at least.
            size: Of the whole frame.
            keys: Of the session.

        Raises:
            Tampered: Another session's frame, or a wrong length.
        """
        tag, nonce, aad = _read_transform(start, size, keys.session_id)
        self._opener = Cipher(keys.aes_opening, modes.GCM(nonce[:_NONCE_SIZE], tag)).decryptor()
        self._opener.authenticate_additional_data(aad)
        self.update_into: Callable[[Any, memoryview], object] = self._opener.update_into

    def finish(self) -> None:
        """Raise Tampered unless the whole frame is what the server sent."""
        try:
            self._opener.finalize()
        except InvalidTag as err:
            raise Tampered("an encrypted frame that was altered on the way") from err


def open_sealed(frame: memoryview, keys: Keys) -> memoryview:
    """Decrypt a whole frame and return the message in it.

    Raises:
        Tampered: Another session's frame, a wrong length, or the tag does not fit.
    """
    if keys.streams:
        opener = Opener(frame, len(frame), keys)
        plain = memoryview(bytearray(len(frame) - TRANSFORM_SIZE))
        opener.update_into(frame[TRANSFORM_SIZE:], plain)
        opener.finish()
        return plain
    tag, nonce, aad = _read_transform(frame, len(frame), keys.session_id)
    try:
        text = bytes(frame[TRANSFORM_SIZE:]) + tag
        return memoryview(AESCCM(keys.open_key).decrypt(nonce[:11], text, aad))
    except InvalidTag as err:
        raise Tampered("an encrypted frame that was altered on the way") from err


def _read_transform(start: memoryview, size: int, session_id: int) -> tuple[bytes, bytes, bytes]:
    """Return tag, nonce and the authenticated rest of a transform header."""
    if size < TRANSFORM_SIZE + HEADER_SIZE:
        raise Tampered(f"an encrypted frame of {size} bytes")
    _, tag, nonce, length, _, flags, owner = _TRANSFORM.unpack_from(start)
    if flags != 1 or owner != session_id or length != size - TRANSFORM_SIZE:
        raise Tampered("an encrypted frame whose header does not fit the session or its length")
    return tag, nonce, bytes(start[20:TRANSFORM_SIZE])


class Sealer:
    """Encrypts what we send in one session. Thread-safe: each frame gets a nonce of its own."""

    def __init__(self, keys: Keys) -> None:
        if not keys.streams:
            raise ValueError("AES-CCM is left to smbprotocol")
        self._keys = keys
        self._prefix = os.urandom(_NONCE_SIZE - 8)
        self._counter = itertools.count(1)

    def seal(self, head: bytearray, data: Buffer, text: memoryview) -> tuple[bytes, bytes]:
        """Encrypt a message.

        Args:
            head: Its header and body.
            data: What follows.
            text: Gets the encrypted `data`; of the same length.

        Returns:
            The frame's first bytes (transform header and encrypted `head`; `text` follows them), and the nonce.
        """
        nonce = self._prefix + next(self._counter).to_bytes(8, "little")
        aad = nonce + struct.pack("<4xIHHQ", len(head) + len(data), 0, 1, self._keys.session_id)
        if not len(data):
            sealed = self._keys.sealer.encrypt(nonce, head, aad)
            return b"\xfdSMB" + sealed[-TAG_SIZE:] + aad + sealed[:-TAG_SIZE], nonce
        cipher = Cipher(self._keys.aes_sealing, modes.GCM(nonce)).encryptor()
        cipher.authenticate_additional_data(aad)
        first = cipher.update(head)
        cipher.update_into(data, text)
        cipher.finalize()
        return b"\xfdSMB" + cipher.tag + aad + first, nonce

    def reveal(self, nonce: bytes, head_size: int, text: memoryview) -> None:
        """Decrypt in place what `seal` made of `data`, so that it can be sent again on another connection."""
        cipher = Cipher(self._keys.aes_sealing, modes.GCM(nonce)).encryptor()
        cipher.update(bytes(head_size))
        for start in range(0, len(text), _PIECE):
            piece = text[start : start + _PIECE]
            piece[:] = cipher.update(piece)


_PIECE = 64 * 1024
