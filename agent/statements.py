"""What the device signs and sends, as frames. Pure: state and key in, frame out."""

from agent.journal.results import Author
from protocol.codec import encode
from protocol.frames import (
    AckFrame,
    EventFrame,
    HelloFrame,
    InventoryFrame,
    NackFrame,
)
from protocol.ids import KeyId
from protocol.inbox import InboxState, lock_notice
from protocol.jobs import EventBody
from protocol.messages import Ack, Event, Hello, Inventory, InventoryItem, Kind, Nack
from protocol.signed import sign
from protocol.versions import own_caps


def hello_frame(
    author: Author,
    state: InboxState,
    *,
    challenge: bytes,
    nonce: bytes,
    link: bytes,
    manifest_serial: int,
    seal_kid: KeyId,
) -> HelloFrame:
    """Return the answer to a challenge: who we are and all that we hold."""
    hello = Hello(
        tenant=author.tenant,
        appliance=author.appliance,
        challenge=challenge,
        nonce=nonce,
        link=link,
        epoch=state.head.epoch,
        have=state.head.have,
        head=state.head.hash,
        journal=state.journal,
        results_last=state.results_last,
        confirmed=state.confirmed,
        manifest_serial=manifest_serial,
        seal_kid=seal_kid,
        caps=own_caps(),
    )
    env = sign(Kind.HELLO, hello, author.device)
    return HelloFrame(tenant=author.tenant, appliance=author.appliance, env=env)


def ack_frame(author: Author, state: InboxState) -> AckFrame:
    """Return the ack of everything that is durable."""
    ack = Ack(epoch=state.head.epoch, have=state.head.have, head=state.head.hash)
    return AckFrame(env=sign(Kind.ACK, ack, author.device))


def nack_frame(author: Author, state: InboxState, *, digest: bytes, code: str) -> NackFrame:
    """Return the refusal of an envelope that cannot be consumed."""
    nack = Nack(epoch=state.head.epoch, have=state.head.have, digest=digest, code=code)
    return NackFrame(env=sign(Kind.NACK, nack, author.device))


def lock_frame(author: Author, state: InboxState) -> NackFrame:
    """Return what a locked agent says before its inventory (protocol.inbox.lock_notice)."""
    return NackFrame(env=sign(Kind.NACK, lock_notice(state), author.device))


def inventory_frame(
    author: Author, state: InboxState, items: tuple[InventoryItem, ...]
) -> InventoryFrame:
    """Return the list of everything that is not final or not confirmed."""
    inventory = Inventory(
        epoch=state.head.epoch,
        have=state.head.have,
        head=state.head.hash,
        journal=state.journal,
        commands=items,
    )
    return InventoryFrame(env=sign(Kind.INVENTORY, inventory, author.device))


def event_frame(
    author: Author, state: InboxState, *, command: bytes, n: int, body: EventBody
) -> EventFrame:
    """Return one event of a job."""
    event = Event(
        v=1,
        tenant=author.tenant,
        appliance=author.appliance,
        journal=state.journal,
        id=command,
        n=n,
        body=encode(body),
    )
    return EventFrame(env=sign(Kind.EVENT, event, author.device))
