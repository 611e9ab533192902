"""SMB connection: smbprotocol's negotiate and session logic over our own receiving half. The only file, with
transport.py, that touches the library's private names (tests/contracts/test_smbprotocol.py holds them).

What arrives is believed only after agent.shares.smb.seal accepted it: once a session exists, every answer must be
encrypted (or signed, where the policy says so), belong to a request that we sent and be of that request's kind.
"""

import logging
import threading
import time
import uuid

from smbprotocol.connection import Connection, SMB2Echo
from smbprotocol.exceptions import SMBConnectionClosed, SMBException, SMBResponseException
from smbprotocol.header import Commands, SMB2HeaderResponse
from smbprotocol.transport import Tcp

from agent.shares.smb import seal, status
from agent.shares.smb.seal import Head, Tampered
from agent.shares.smb.transport import StrictTransport
from agent.shares.smb.untyped import LibMessage, LibRequest, LibSession
from imaging.units import KiB

FRAME_OVERHEAD = 8 * KiB
"""Headers, and the contexts of a negotiate answer."""

UNSOLICITED = 0xFFFF_FFFF_FFFF_FFFF
"""Message id of oplock breaks; we hold no oplock, so these are dropped ([MS-SMB2] 3.2.5.19)."""

RESERVED_CREDITS = 8
"""READs leave these to metadata calls and to the keepalive."""

_SLICE = 1.0  # Seconds between two looks at whether the receiving thread still lives.

# The library's DEBUG output holds authentication tokens and file contents, and formatting it costs more than
# the transfer; its one ERROR (with a traceback) repeats what we raise ourselves.
logging.getLogger("smbprotocol").setLevel(logging.CRITICAL)
logging.getLogger("spnego").setLevel(logging.WARNING)


class AnswerTimeout(SMBException):  # type: ignore[misc]  # the library has no types
    """The server did not answer a request in time."""


class StrictConnection(Connection):  # type: ignore[misc]  # the library has no types
    """One connection with one session.

    Thread-safe like the library's: any thread sends and waits, one thread of its own receives.
    """

    def __init__(
        self, server: str, port: int, *, answer_timeout: float, keepalive: float, max_answer: int
    ) -> None:
        """Prepare; `connect` opens it.

        Args:
            server: Host name or address.
            port: TCP port.
            answer_timeout: Seconds for every answer that is waited for without a time of its own.
            keepalive: Idle seconds before an ECHO.
            max_answer: Largest payload that we shall ever ask for.
        """
        self._transport = StrictTransport(
            server, port, max_frame=max_answer + FRAME_OVERHEAD, stall=answer_timeout
        )
        super().__init__(uuid.uuid4(), server, port, require_signing=True)
        self.answer_timeout = answer_timeout
        self._keepalive = keepalive
        self._credits = threading.Condition(self.sequence_lock)
        self._turn = threading.Lock()
        self._probe: LibRequest = None
        self._logon_answer = b""

    @property
    def transport(self) -> StrictTransport:
        """The socket: ours, whatever the library assigns; only its time limit is taken over."""
        return self._transport

    @transport.setter
    def transport(self, given: Tcp | None) -> None:
        if given is not None:
            self._transport.timeout = given.timeout

    @property
    def alive(self) -> bool:
        """Whether requests can still be sent."""
        return self._t_exc is None and bool(self._transport.connected)

    def cut(self) -> None:
        """End everything on this connection at once. From any thread, never blocks."""
        self._transport.cut()

    # --- asking -----------------------------------------------------------------------------------

    def send_when_granted(
        self, message: LibMessage, *, charge: int, sid: int, tid: int
    ) -> LibRequest:
        """Send a request that costs `charge` credits as soon as the server has granted them.

        Raises:
            AnswerTimeout: The server granted too little for too long.
        """
        with self._turn:
            with self._credits:
                granted = self._credits.wait_for(
                    lambda: self.credits_left() >= charge + RESERVED_CREDITS or not self.alive,
                    self.answer_timeout,
                )
            if not granted:
                raise AnswerTimeout(f"no {charge} credits within {self.answer_timeout} s")
            return self.send(message, sid=sid, tid=tid)

    def credits_left(self) -> int:
        """Return the credits that the server has granted and we have not used."""
        return int(self.sequence_window["high"] - self.sequence_window["low"])

    # --- waiting ----------------------------------------------------------------------------------

    def receive(
        self,
        request: LibRequest,
        wait: bool = True,  # noqa: ARG002, FBT001, FBT002 - the library's signature
        timeout: float | None = None,
        resolve_symlinks: bool = True,  # noqa: ARG002, FBT001, FBT002 - never done here
    ) -> LibMessage:
        """Wait for the final answer to a request; symbolic links are not followed.

        Raises:
            AnswerTimeout: None came in time; the first interim PENDING restarts the clock, no other does.
            SMBResponseException: The answer is an error.
            SMBConnectionClosed: The connection ended first.
            Tampered: The connection ended because of what came over it.
        """
        limit = self.answer_timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        head = self._next_answer(request, deadline)
        if head.status == status.PENDING:
            deadline = time.monotonic() + limit
        while head.status == status.PENDING:
            head = self._next_answer(request, deadline)
        self.outstanding_requests.pop(head.message_id, None)
        if head.status != status.SUCCESS:
            raise SMBResponseException(request.response)
        return request.response

    def receive_data(self, request: LibRequest) -> memoryview:
        """Wait for the answer to a READ; return its body ([MS-SMB2] 2.2.20) without copying it."""
        self.receive(request)
        return memoryview(request.body)

    def _next_answer(self, request: LibRequest, deadline: float) -> Head:
        """Wait for an answer to arrive and take it; an interim one leaves room for the final one."""
        while not request.response_event.wait(min(_SLICE, max(0.0, deadline - time.monotonic()))):
            self._check_worker_running()
            if time.monotonic() >= deadline:
                raise AnswerTimeout("the server did not answer in time")
        with request.response_event_lock:
            head: Head | None = getattr(request, "head", None)
            if head is not None and head.status == status.PENDING:
                request.head = None
                request.response_event.clear()
        if head is None:
            self._check_worker_running()
            raise SMBConnectionClosed("the connection ended before the answer")
        return head

    def _check_worker_running(self) -> None:
        """Raise what ended the connection, as a new exception in the caller's own thread."""
        cause = self._t_exc
        if isinstance(cause, Tampered):
            raise Tampered(str(cause)) from cause
        if cause is not None or not self.alive:
            raise SMBConnectionClosed(f"the connection has ended: {cause}") from cause

    # --- receiving (one thread) -------------------------------------------------------------------

    def _process_message_thread(self) -> None:
        """Receive until the connection ends, then wake everybody who waits."""
        try:
            while self._receive_one():
                pass
        except Exception as err:  # noqa: BLE001 - the thread's only way out; raised to every caller
            self._t_exc = err
        finally:
            self.cut()
            self.transport.close()
            for request in list(self.outstanding_requests.values()):
                request.response_event.set()
            with self._credits:
                self._credits.notify_all()

    def _receive_one(self) -> bool:
        """Take one frame; False when the connection has ended."""
        try:
            frame = self.transport.recv_frame(self._keepalive)
        except TimeoutError:
            self._keep_alive()
            return True
        if frame is not None:
            self._deliver(memoryview(frame))
        return frame is not None

    def _keep_alive(self) -> None:
        """Ask for a sign of life; no answer to the last one means that the peer is dead."""
        if self._probe is not None:
            raise ConnectionAbortedError("the server does not answer a keepalive")
        session = self._session()
        if session is not None:
            self._probe = self.send(SMB2Echo(), sid=session.session_id)

    def _deliver(self, frame: memoryview) -> None:
        """Check one frame and hand it to whoever asked for it."""
        session = self._session()
        sealed = seal.is_sealed(frame)
        message = self._unseal(frame, session) if sealed else frame
        head = seal.parse_head(message)
        if head.message_id == UNSOLICITED:
            return
        request = self.outstanding_requests.get(head.message_id)
        if request is None or request.message["command"].get_value() != head.command:
            raise Tampered(f"an answer (command {head.command}) to nothing that was asked")
        if session is None:
            self._remember_preauth(message, head)
        elif not sealed:
            self._require_signature(message, head, request, session)
        self._grant(head)
        self._hand_over(message, head, request)

    def _session(self) -> LibSession:
        """Return the one session of this connection; None until the logon is complete."""
        return next(iter(self.session_table.values()), None)

    def verify_logon(self, session: LibSession) -> None:
        """Check the signature of the answer that completed the logon.

        The library does so only on signed sessions; it is the proof that nobody changed the negotiation either.

        Raises:
            Tampered: It does not fit.
        """
        answer = memoryview(bytearray(self._logon_answer))
        self._verify(answer, seal.parse_head(answer), session)

    def _unseal(self, frame: memoryview, session: LibSession) -> memoryview:
        if session is None:
            raise Tampered("an encrypted frame before the logon")
        return seal.open_sealed(
            frame,
            key=session.decryption_key,
            cipher_id=self.cipher_id or min(seal.CCM_IDS),
            session_id=session.session_id,
        )

    def _remember_preauth(self, message: memoryview, head: Head) -> None:
        """Before the logon only its own two commands are answered; both go into the preauth hash."""
        if head.command == Commands.SMB2_NEGOTIATE:
            self.preauth_integrity_hash_value.append(bytes(message))
        elif head.command != Commands.SMB2_SESSION_SETUP:
            raise Tampered(f"an answer (command {head.command}) before the logon")
        elif head.status == status.SUCCESS:
            self._logon_answer = bytes(message)
        elif head.status == status.MORE_PROCESSING_REQUIRED:
            self.preauth_integrity_session_hash_value[head.message_id].append(bytes(message))

    def _require_signature(
        self, message: memoryview, head: Head, request: LibRequest, session: LibSession
    ) -> None:
        """Refuse a plain answer unless this session is signed only, and its signature fits.

        An unsigned PENDING passes: servers do not sign it ([MS-SMB2] 3.2.5.1.3) and it only means to wait.
        """
        tree = session.tree_connect_table.get(request.message["tree_id"].get_value())
        if session.encrypt_data or (tree is not None and tree.encrypt_data):
            raise Tampered("a plain answer on an encrypted session")
        if head.session_id != session.session_id:
            raise Tampered("an answer for another session")
        if head.status == status.PENDING and not head.signed:
            return
        self._verify(message, head, session)

    def _verify(self, message: memoryview, head: Head, session: LibSession) -> None:
        chosen = self.signing_algorithm_id
        algorithm = seal.CMAC_ID if chosen is None else chosen  # Older servers do not choose one.
        seal.verify_signature(message, head, key=session.signing_key, algorithm=algorithm)

    def _grant(self, head: Head) -> None:
        """Add what the server grants; dialects without credits still move the window by one."""
        granted = head.credits or (0 if self.supports_multi_credit else 1)
        with self._credits:
            self.sequence_window["high"] += granted
            self._credits.notify_all()

    def _hand_over(self, message: memoryview, head: Head, request: LibRequest) -> None:
        """Give an answer to its request; a READ's body is not copied and not parsed here."""
        if request is self._probe:
            self._probe = None
            self.outstanding_requests.pop(head.message_id, None)
        plain_read = head.command == Commands.SMB2_READ and head.status == status.SUCCESS
        response = None
        if not plain_read:
            response = SMB2HeaderResponse()
            response.unpack(bytes(message))
        with request.response_event_lock:
            request.head, request.response = head, response
            request.body = message[seal.HEADER_SIZE :]
            request.response_event.set()
