"""SMB connection: smbprotocol's negotiate and session logic over our own receiving half. The only file, with
transport.py, that touches the library's private names (tests/contracts/test_smbprotocol.py holds them).

What arrives is believed only after agent.shares.smb.seal accepted it: once a session exists, every answer must be
encrypted (or signed, where the policy says so), belong to a request that we sent and be of that request's kind.

Metadata go through the library's `send` and `receive`; data through `post` and `collect`, which share the message
ids, the credits and the receiving thread with them.
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
from agent.shares.smb.allowance import Allowance
from agent.shares.smb.inbound import Answer, Inbound, take_data
from agent.shares.smb.outbound import Outbound
from agent.shares.smb.seal import Buffer, Head, Keys, Sealer, Tampered
from agent.shares.smb.ticket import AnswerTimeout, Ticket
from agent.shares.smb.transport import StrictTransport
from agent.shares.smb.untyped import LibMessage, LibRequest, LibSession, LibTree
from agent.shares.smb.wire import Ask, Refused
from imaging.units import KiB

FRAME_OVERHEAD = 8 * KiB
"""Headers, and the contexts of a negotiate answer."""

UNSOLICITED = 0xFFFF_FFFF_FFFF_FFFF
"""Message id of oplock breaks; we hold no oplock, so these are dropped ([MS-SMB2] 3.2.5.19)."""

_SLICE = 1.0  # Seconds between two looks at whether the receiving thread still lives.

# The library's DEBUG output holds authentication tokens and file contents, and formatting it costs more than
# the transfer; its one ERROR (with a traceback) repeats what we raise ourselves.
logging.getLogger("smbprotocol").setLevel(logging.CRITICAL)
logging.getLogger("spnego").setLevel(logging.WARNING)


class StrictConnection(Connection):  # type: ignore[misc]  # the library has no types
    """One connection with one session; `allowance` is its window of message ids.

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
        self.allowance = Allowance(self.sequence_window, self.sequence_lock)
        self._tickets: dict[int, Ticket] = {}
        self._inbound = Inbound(self._transport, self._tickets)
        self._outbound: Outbound | None = None
        self._ended = threading.Event()
        self._probe: LibRequest = None
        self._logged_on: LibSession = None
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

    def require_alive(self) -> None:
        """Raise what ended the connection, if it has ended: SMBConnectionClosed, or Tampered."""
        self._check_worker_running()

    def cut(self) -> None:
        """End everything on this connection at once. From any thread, never blocks."""
        self._transport.cut()

    def protect_data(self, tree: LibTree) -> None:
        """Say which share `post` is for, and protect its data as the session or the share demands."""
        keys = self._keys_of(tree.session)
        is_sealed = bool(tree.session.encrypt_data or tree.encrypt_data)
        self._inbound.must_be_sealed = is_sealed
        self._outbound = Outbound(
            keys,
            tree.tree_connect_id,
            is_multi=bool(self.supports_multi_credit),
            is_sealed=is_sealed,
            sealer=Sealer(keys) if is_sealed and keys.streams else None,
            encrypt_whole=lambda message: bytes(self._encrypt(message, tree.session).pack()),
        )

    @property
    def sealer(self) -> Sealer | None:
        """What encrypts the data that we send in place, if they are."""
        return None if self._outbound is None else self._outbound.sealer

    # --- asking for data --------------------------------------------------------------------------

    def post(
        self,
        ask: Ask,
        ticket: Ticket,
        *,
        data: Buffer = b"",
        text: memoryview | None = None,
    ) -> None:
        """Send a request as soon as the server has granted the credits for it.

        Args:
            ask: What is asked.
            ticket: Ends once in any case: finished or lost by the receiving thread, or lost because this raises.
            data: The data of a WRITE; left alone once this has returned.
            text: Where they are encrypted to, of the same length, or themselves; needed if there is a `sealer`.

        Raises:
            TimeoutError: The server granted too little for too long.
            OSError, SMBConnectionClosed, Tampered: The connection is gone.
        """
        outbound = self._outbound
        if outbound is None:
            raise SMBException("no share is connected yet")
        message_id = self._register(ask, ticket)
        try:
            parts = outbound.pack(ask, ticket, message_id, data, text)
            self._check_worker_running()
            self._transport.send_parts(parts)
        except BaseException:
            if self._tickets.pop(message_id, None) is not None:
                ticket.lose()
            raise

    def collect(self, ticket: Ticket) -> int:
        """Wait for the answer to what was posted and return the bytes read or written.

        Raises:
            AnswerTimeout: None came in time; the first interim PENDING restarts the clock, no other does.
            Refused: The answer is an error.
            SMBConnectionClosed, Tampered: The connection ended first.
        """
        deadline, extended = time.monotonic() + self.answer_timeout, False
        while not ticket.wait(min(_SLICE, max(0.0, deadline - time.monotonic()))):
            if ticket.is_pending and not extended:
                deadline, extended = time.monotonic() + self.answer_timeout, True
            self._check_worker_running()
            if time.monotonic() >= deadline:
                raise AnswerTimeout("the server did not answer in time")
        if ticket.head is None:
            self._check_worker_running()
            raise SMBConnectionClosed("the connection ended before the answer")
        if ticket.head.status != status.SUCCESS:
            raise Refused(ticket.head.status)
        return ticket.count

    def give_up(self) -> None:
        """End the connection and wait until its thread touches no buffer of ours any more."""
        self.cut()
        self._ended.wait()

    def _register(self, ask: Ask, ticket: Ticket) -> int:
        """Give a ticket its message id."""
        try:
            message_id = self.allowance.take(
                ask.charge, timeout=self.answer_timeout, is_over=lambda: not self.alive
            )
        except BaseException:
            ticket.lose()
            raise
        self._tickets[message_id] = ticket
        return message_id

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
            self._ended.set()
            for request in list(self.outstanding_requests.values()):
                request.response_event.set()
            while self._tickets:
                self._tickets.popitem()[1].lose()
            self.allowance.wake()

    def _receive_one(self) -> bool:
        """Take one frame; False when the connection has ended."""
        try:
            return bool(self.transport.receive(self._keepalive, self._take))
        except TimeoutError:
            self._keep_alive()
            return True

    def _take(self, size: int) -> bool:
        """Receive the frame whose length just came, and deliver it; False if the stream ended inside of it."""
        session = self._logged_on
        if session is None and self.session_table:
            session = self._logged_on = next(iter(self.session_table.values()))
            self._inbound.keys = self._keys_of(session)
        answer = self._inbound.take(size)
        if answer is not None:
            self._deliver(answer, session)
        return answer is not None

    def _keep_alive(self) -> None:
        """Ask for a sign of life; no answer to the last one means that the peer is dead."""
        if self._probe is not None:
            raise ConnectionAbortedError("the server does not answer a keepalive")
        session = self._logged_on
        if session is not None:
            self._probe = self.send(SMB2Echo(), sid=session.session_id)

    def _deliver(self, answer: Answer, session: LibSession) -> None:
        """Check one answer and hand it to whoever asked for it; dialects without credits grant one with each."""
        head = answer.head
        if head.message_id == UNSOLICITED:
            return
        ticket = answer.ticket
        if ticket is not None:
            self.allowance.grant(head.credits)
            del self._tickets[head.message_id]
            ticket.finish(head, ticket.count)
            return
        ticket = self._tickets.get(head.message_id)
        request = self.outstanding_requests.get(head.message_id)
        if self._command_of(ticket, request) != head.command:
            raise Tampered(f"an answer (command {head.command}) to nothing that was asked")
        if session is None:
            self._remember_preauth(answer.message, head)
        elif not answer.was_sealed:
            tree_id = self._tree_of(ticket, request)
            self._require_signature(answer.message, head, session, tree_id)
        self.allowance.grant(head.credits or (0 if self.supports_multi_credit else 1))
        if ticket is not None:
            self._finish(ticket, head, answer.message)
        else:
            self._hand_over(answer.message, head, request)

    def _command_of(self, ticket: Ticket | None, request: LibRequest) -> int | None:
        if ticket is not None:
            return ticket.command
        return None if request is None else int(request.message["command"].get_value())

    def verify_logon(self, session: LibSession) -> None:
        """Check the signature of the answer that completed the logon.

        The library does so only on signed sessions; it is the proof that nobody changed the negotiation either.

        Raises:
            Tampered: It does not fit.
        """
        answer = memoryview(bytearray(self._logon_answer))
        seal.verify_signature(answer, seal.parse_head(answer), self._keys_of(session))

    def _tree_of(self, ticket: Ticket | None, request: LibRequest) -> int:
        if ticket is not None and self._outbound is not None:
            return self._outbound.tree_id
        return int(request.message["tree_id"].get_value())

    def _keys_of(self, session: LibSession) -> Keys:
        chosen = self.signing_algorithm_id
        return Keys(
            session_id=session.session_id,
            signing_key=session.signing_key,
            signing_algorithm=seal.CMAC_ID
            if chosen is None
            else chosen,  # Older servers choose none.
            cipher_id=self.cipher_id or min(seal.CCM_IDS),
            seal_key=session.encryption_key,
            open_key=session.decryption_key,
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
        self, message: memoryview, head: Head, session: LibSession, tree_id: int
    ) -> None:
        """Refuse a plain answer unless this session is signed only, and its signature fits.

        An unsigned PENDING passes: servers do not sign it ([MS-SMB2] 3.2.5.1.3) and it only means to wait.
        """
        tree = session.tree_connect_table.get(tree_id)
        if session.encrypt_data or (tree is not None and tree.encrypt_data):
            raise Tampered("a plain answer on an encrypted session")
        if head.session_id != session.session_id:
            raise Tampered("an answer for another session")
        if head.status == status.PENDING and not head.signed:
            return
        seal.verify_signature(message, head, self._keys_of(session))

    def _finish(self, ticket: Ticket, head: Head, message: memoryview) -> None:
        """End what was posted; whatever an answer says of lengths is checked."""
        if head.status == status.PENDING:
            ticket.is_pending = True
            return
        count = take_data(ticket, message) if head.status == status.SUCCESS else 0
        del self._tickets[head.message_id]
        ticket.finish(head, count)

    def _hand_over(self, message: memoryview, head: Head, request: LibRequest) -> None:
        """Give an answer to its request."""
        if request is self._probe:
            self._probe = None
            self.outstanding_requests.pop(head.message_id, None)
        response = SMB2HeaderResponse()
        response.unpack(bytes(message))
        with request.response_event_lock:
            request.head, request.response = head, response
            request.response_event.set()
