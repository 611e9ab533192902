"""Tell systemd how the service is (sd_notify(3)): one datagram to $NOTIFY_SOCKET. Never fails, never waits."""

import contextlib
import socket


def notify(address: str, state: str) -> None:
    """Send one state such as `READY=1`; an empty address means that nobody listens."""
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock,
    ):
        sock.sendto(state.encode(), target)
