"""What the device states: signed by its key, and everything that the signer has to know is in it."""

from agent import statements
from agent.journal.results import Author
from protocol.acceptor import Head
from protocol.inbox import InboxState
from protocol.messages import MAX_STATEMENT, Hello, Kind
from protocol.ops import OPS
from protocol.signed import SigningKey, open_statement
from protocol.versions import COMMAND_HEADERS, understands

STATE = InboxState(head=Head(3, 7, b"h" * 32), began=b"b" * 32, journal=b"j" * 16, results_last=9)


def _hello() -> Hello:
    author = Author("acme", "site-1", SigningKey.from_seed(b"d" * 32))
    frame = statements.hello_frame(
        author,
        STATE,
        challenge=b"c" * 32,
        nonce=b"n" * 16,
        link=b"",
        manifest_serial=2,
        seal_kid=b"s" * 16,
    )
    public = author.device.public
    return open_statement(Kind.HELLO, frame.env, Hello, public=public, limit=MAX_STATEMENT)[1]


def test_hello_states_the_whole_order_state() -> None:
    hello = _hello()
    assert (hello.epoch, hello.have, hello.head) == (3, 7, b"h" * 32)
    assert (hello.journal, hello.results_last, hello.confirmed) == (b"j" * 16, 9, 0)


def test_hello_announces_every_op_and_every_command_header_that_is_understood() -> None:
    caps = _hello().caps
    for header in COMMAND_HEADERS:
        for op, args_v in OPS:
            assert understands(caps, op=op, args_v=args_v, header=header)
