"""SMB ticket: one READ, WRITE or FLUSH in flight. Filled by the receiving thread, waited for by whoever asked."""

import threading
from collections.abc import Callable

from smbprotocol.exceptions import SMBException

from agent.shares.smb.seal import Head


class AnswerTimeout(SMBException):  # type: ignore[misc]  # the library has no types
    """The server did not answer a request in time."""


class Ticket:
    """A request that the server owes an answer to.

    Attributes:
        command: What was asked.
        asked: Bytes of data that it is about.
        view: Where the data of a READ go; None for anything else.
        head: The final answer's header; None while there is none, and for ever if the connection ended first.
        count: Bytes that were read or written.
        is_pending: The server said that it will take longer.
        nonce: What the data were encrypted with; empty before that, and if they were not.
        since: When it was sent, if its time is measured; else 0.
    """

    __slots__ = (
        "_done",
        "_then",
        "asked",
        "command",
        "count",
        "head",
        "is_pending",
        "nonce",
        "since",
        "view",
    )

    def __init__(
        self,
        command: int,
        *,
        asked: int = 0,
        view: memoryview | None = None,
        then: Callable[["Ticket"], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            command: What is asked.
            asked: Bytes of data that it is about.
            view: Where the data go.
            then: Called once by the receiving thread when the answer is there or will never come; must be quick.
        """
        self.command = command
        self.asked = asked
        self.view = view
        self.head: Head | None = None
        self.count = 0
        self.is_pending = False
        self.nonce = b""
        self.since = 0.0
        self._then = then
        self._done = threading.Lock()  # Held until the end: an Event would be four objects.
        self._done.acquire()

    def finish(self, head: Head, count: int = 0) -> None:
        """Take the final answer."""
        self.head, self.count = head, count
        self._end()

    def lose(self) -> None:
        """There will be no answer."""
        self._end()

    def wait(self, timeout: float) -> bool:
        """Wait for the end; False if it did not come in time."""
        if not self._done.acquire(timeout=timeout):
            return False
        self._done.release()
        return True

    def _end(self) -> None:
        self._done.release()
        if self._then is not None:
            self._then(self)
