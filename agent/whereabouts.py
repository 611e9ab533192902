"""Where a worker thread of a transfer is: told by whoever knows (reader, hash, socket), read by whoever watches it.

The thread registers its place; code that runs in other threads, or in tests, tells nobody.
"""

import fcntl
import struct
import termios
import threading
from enum import Enum

NO_SOCKET = -1


class At(Enum):
    """What a worker is at."""

    TURN = "waiting for its turn to read, or for something to send"
    READING = "reading from the source"
    COMPUTING = "hashing, comparing or compressing"
    LIMITED = "waiting for the bandwidth limit"
    WRITING = "writing to a target that does not say more"
    SENDING = "connecting, or sending a request's body"
    ANSWER = "waiting for the answer to a request that is sent"
    SLOT = "waiting for a slot: the service throttled us"
    PAUSED = "waiting to try again what the service throttled or failed at"
    DONE = "at its end: nothing is left for it"
    BROKEN = "waiting to try again what the network broke"


class Place:
    """Where one worker is, and the socket that it waits at."""

    __slots__ = ("at", "socket")

    def __init__(self) -> None:
        self.at = At.TURN
        self.socket = NO_SOCKET

    def look(self) -> At:
        """Return where it is: who waits for an answer is still sending while bytes are on their way. From any thread.

        The kernel takes megabytes before the link has carried one (tcp(7), SIOCOUTQ: what the other side has not
        acknowledged). A socket that was closed meanwhile is no news.
        """
        if self.at is not At.ANSWER or self.socket == NO_SOCKET:
            return self.at
        try:
            found = fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return self.at
        return At.SENDING if struct.unpack("i", found)[0] > 0 else self.at


_here = threading.local()


def register(place: Place) -> None:
    """Make `place` that of the calling thread."""
    _here.place = place


def now(at: At, socket: int = NO_SOCKET) -> None:
    """Tell where the calling thread is; `socket` is the number of the one at which it waits for an answer."""
    place = getattr(_here, "place", None)
    if place is not None:
        place.socket = socket
        place.at = at
