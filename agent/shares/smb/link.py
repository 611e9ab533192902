"""SMB link: one connection, one session, one share, made by the policy or not at all. Shares nothing with any
other link (smbprotocol's `smbclient` module keeps sessions per process and ignores a wrong password; not used).
"""

from dataclasses import dataclass

from smbprotocol.connection import Ciphers, SigningAlgorithms
from smbprotocol.exceptions import SMBException
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

from agent.errors import AgentError
from agent.shares.errors import LogonFailed, SecurityRefused, ShareUnreachable
from agent.shares.smb import status, wire
from agent.shares.smb.allowance import RESERVED_CREDITS
from agent.shares.smb.connection import StrictConnection
from agent.shares.smb.kerberos import meaning_of
from agent.shares.smb.policy import Dialect, Encryption, SmbPolicy
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.translate import WIRE_ERRORS, translate
from agent.shares.smb.untyped import LibMessage, LibSession, LibTree
from agent.shares.smb.window import Depth, Slots
from agent.shares.smb.wire import CREDIT_BYTES
from imaging.units import KiB

METADATA_BYTES = 64 * KiB
"""Largest answer to anything but a READ."""

CLOSE_TIMEOUT = 3.0
"""Seconds that a polite goodbye may take per step."""

_NTLM_PROOF = b"NTLMSSP\0\x03\0\0\0"
"""How an AUTHENTICATE_MESSAGE begins ([MS-NLMP] 2.2.1.3)."""

_CIPHER_NAMES = {1: "AES-128-CCM", 2: "AES-128-GCM", 3: "AES-256-CCM", 4: "AES-256-GCM"}
_SIGNING_NAMES = {0: "HMAC-SHA256", 1: "AES-CMAC", 2: "AES-GMAC"}


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What was agreed with the server, for reports and the doctor."""

    dialect: str
    encryption: str
    signing: str
    auth: str
    max_read: int


class Link:
    """A connected share.

    Attributes:
        connection: The checked connection.
        tree: The library's tree connect.
        chunk: Bytes of one READ that the server and its credits allow.
        write_chunk: The most of one WRITE.
        slots: One permit for every READ in flight.
        facts: What was agreed.
    """

    def __init__(self, connection: StrictConnection, tree: LibTree, policy: SmbPolicy) -> None:
        self.connection = connection
        self.tree = tree
        self.session_id: int = tree.session.session_id
        self.tree_id: int = tree.tree_connect_id
        affordable = (connection.allowance.left - RESERVED_CREDITS) * CREDIT_BYTES
        most = max(CREDIT_BYTES, min(policy.chunk, affordable))
        self.chunk = min(most, connection.max_read_size)
        self.write_chunk = min(most, connection.max_write_size)
        self.slots = Slots(Depth(*policy.depth), timeout=policy.answer_timeout)
        connection.protect_data(tree)
        self.facts = _facts(connection, tree)

    @property
    def alive(self) -> bool:
        """Whether requests can still be sent."""
        return self.connection.alive

    def ask(self, message: LibMessage) -> LibMessage:
        """Send one request and return the answer's header; errors are the library's."""
        return self.connection.receive(
            self.connection.send(message, sid=self.session_id, tid=self.tree_id)
        )

    def close(self) -> None:
        """Log off if the server still listens; the socket is gone afterwards in any case."""
        self.connection.answer_timeout = CLOSE_TIMEOUT
        try:
            if self.alive:
                self.connection.disconnect(timeout=CLOSE_TIMEOUT)
        except WIRE_ERRORS:
            pass  # The server forgets us when the socket closes.
        finally:
            self.connection.cut()
            self.connection.disconnect(close=False)


def new_connection(ref: SmbShareRef, policy: SmbPolicy) -> StrictConnection:
    """Return an unconnected connection; it exists apart so that it can be cut while it connects."""
    return StrictConnection(
        ref.server,
        ref.port,
        answer_timeout=policy.connect_timeout,
        keepalive=policy.keepalive,
        max_answer=max(policy.chunk, METADATA_BYTES),
    )


def establish(
    connection: StrictConnection, ref: SmbShareRef, credential: SmbCredential, policy: SmbPolicy
) -> Link:
    """Negotiate, log on and connect the share; the connection is cut if any step fails.

    Raises:
        ShareUnreachable, ShareTimeout, ShareDisconnected: No server, or it went away.
        SecurityRefused: It offers less than the policy demands, or answers were tampered with.
        LogonFailed, NoSuchShare, AccessDenied: By the server's word.
    """
    try:
        _negotiate(connection, ref, policy)
        session = _log_on(connection, ref, credential, policy)
        tree = _connect_tree(session, ref)
        connection.echo(sid=session.session_id, credit_request=_credits_wanted(policy))
    except WIRE_ERRORS as err:
        connection.cut()
        raise translate(err, f"connecting to {ref}", share=str(ref)) from err
    except AgentError:
        connection.cut()
        raise
    connection.answer_timeout = policy.answer_timeout
    return Link(connection, tree, policy)


def _negotiate(connection: StrictConnection, ref: SmbShareRef, policy: SmbPolicy) -> None:
    """Connect the socket and agree on dialect and algorithms; what was not offered is not accepted."""
    ciphers = [Ciphers.AES_128_GCM, Ciphers.AES_256_GCM]
    if policy.oldest_dialect < Dialect.SMB_3_1_1:
        ciphers.append(Ciphers.AES_128_CCM)  # The library offers 3.0.x only together with this.
    signing = [SigningAlgorithms.AES_GMAC, SigningAlgorithms.AES_CMAC]
    try:
        connection.connect(
            timeout=policy.connect_timeout,
            preferred_encryption_algos=ciphers,
            preferred_signing_algos=signing,
        )
    except SMBException as err:
        if getattr(err, "status", None) in {status.NOT_SUPPORTED, status.INVALID_PARAMETER}:
            raise _too_weak(ref, "speaks no dialect that the policy allows") from err
        raise
    except OSError as err:
        why = err.strerror or str(err)
        raise ShareUnreachable(f"{ref}: cannot connect: {why}", share=str(ref)) from err
    if connection.dialect < policy.oldest_dialect:
        raise _too_weak(ref, f"chose dialect 0x{connection.dialect:04X}")
    if connection.cipher_id not in {None, 0, *ciphers}:
        raise _too_weak(ref, "chose a cipher that was not offered")
    if connection.signing_algorithm_id not in {None, *signing}:
        raise _too_weak(ref, "chose a signing algorithm that was not offered")
    if policy.encryption is Encryption.REQUIRE and not connection.supports_encryption:
        raise _too_weak(ref, "does not encrypt")


def _log_on(
    connection: StrictConnection, ref: SmbShareRef, credential: SmbCredential, policy: SmbPolicy
) -> LibSession:
    """Authenticate; guest and anonymous sessions are never accepted."""
    encrypt = policy.encryption is Encryption.REQUIRE or (
        policy.encryption is Encryption.PREFER and bool(connection.supports_encryption)
    )
    session = Session(
        connection,
        username=credential.principal,
        password=credential.password.reveal(),
        require_encryption=encrypt,
        auth_protocol=policy.auth.value,
    )
    doing = f"logging on to {ref.server} as {credential.principal}"
    try:
        session.connect()
        connection.verify_logon(session)
    except WIRE_ERRORS as err:
        if (
            type(err) is SMBException
        ):  # Guest sessions and a wrong final signature have no class of their own.
            raise SecurityRefused(f"{doing}: {err}", share=str(ref)) from err
        fields = {"share": str(ref), "user": credential.principal}
        raise meaning_of(err, doing, **fields) or translate(err, doing, **fields) from err
    except Exception as err:  # krb5 and gssapi, behind pyspnego, raise their own kinds
        known = meaning_of(err, doing, share=str(ref))
        raise known or LogonFailed(f"{doing}: {type(err).__name__}", share=str(ref)) from err
    finally:
        session.password = None
    if not session.signing_key or not (session.encrypt_data or session.signing_required):
        raise SecurityRefused(f"{doing}: the session is neither signed nor encrypted")
    return session


def _connect_tree(session: LibSession, ref: SmbShareRef) -> LibTree:
    """Connect the share; the dialects below 3.1.1 prove here that nobody lowered them."""
    tree = TreeConnect(session, ref.unc)
    try:
        tree.connect(require_secure_negotiate=True)
    except WIRE_ERRORS as err:
        if type(err) is SMBException:
            raise SecurityRefused(f"{ref}: {err}", share=str(ref)) from err
        raise translate(err, f"connecting to {ref}", share=str(ref)) from err
    tree.is_dfs_share = (
        False  # The library would flag plain paths as DFS paths; we follow no referral.
    )
    return tree


def _credits_wanted(policy: SmbPolicy) -> int:
    """Return the credits that keep `depth` READs in flight."""
    return policy.depth[1] * wire.charge(policy.chunk) + 2 * RESERVED_CREDITS


def _facts(connection: StrictConnection, tree: LibTree) -> LinkFacts:
    encrypted = tree.session.encrypt_data or tree.encrypt_data
    return LinkFacts(
        dialect=f"{connection.dialect >> 8}.{connection.dialect >> 4 & 15}.{connection.dialect & 15}",
        encryption=_CIPHER_NAMES[connection.cipher_id or 1] if encrypted else "none",
        signing=_SIGNING_NAMES.get(connection.signing_algorithm_id, "AES-CMAC"),
        auth=_auth_of(tree.session),
        max_read=connection.max_read_size,
    )


def _auth_of(session: LibSession) -> str:
    """Tell how the user proved who he is; the library keeps what was sent, and NTLM's last message has its name."""
    sent = session.preauth_integrity_hash_value
    return "ntlm" if any(_NTLM_PROOF in message for message in sent) else "kerberos"


def _too_weak(ref: SmbShareRef, what: str) -> SecurityRefused:
    return SecurityRefused(f"{ref}: the server {what}", share=str(ref))
