"""SMB outbound: a request and its data become the parts of one frame, signed or encrypted. Sends nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.shares.smb import seal, wire
from agent.shares.smb.seal import Buffer, Keys, Sealer
from agent.shares.smb.ticket import Ticket
from agent.shares.smb.wire import Ask


@dataclass(frozen=True, slots=True)
class Outbound:
    """How data for one share are protected.

    Attributes:
        keys: Of the session.
        tree_id: Of the share.
        is_multi: Whether the dialect counts credits by size.
        is_sealed: Whether they are encrypted; else they are signed.
        sealer: What encrypts them in place; None if they are only signed, or the cipher is CCM.
        encrypt_whole: Encrypts a message that lies in one piece: smbprotocol's, for CCM.
    """

    keys: Keys
    tree_id: int
    is_multi: bool
    is_sealed: bool
    sealer: Sealer | None
    encrypt_whole: Callable[[bytes], bytes]

    def pack(
        self, ask: Ask, ticket: Ticket, message_id: int, data: Buffer, text: memoryview | None
    ) -> list[Buffer]:
        """Return the parts of a frame.

        Args:
            ask: What is asked.
            ticket: Gets the nonce, once `text` is encrypted.
            message_id: The request's first id.
            data: What follows the request; not copied.
            text: Where it is encrypted to, of the same length, or itself; needed if there is a `sealer`.
        """
        head = wire.build_head(
            ask,
            message_id=message_id,
            session_id=self.keys.session_id,
            tree_id=self.tree_id,
            is_signed=not self.is_sealed,
            is_multi=self.is_multi,
        )
        if self.sealer is not None:
            text = memoryview(b"") if text is None else text
            first, ticket.nonce = self.sealer.seal(head, data, text)
            return [first, text]
        if self.is_sealed:
            return [self.encrypt_whole(bytes(head) + bytes(data))]
        seal.sign(head, data, self.keys, message_id)
        return [head, data]
