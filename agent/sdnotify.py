"""Tells the service manager how the agent is: READY, STATUS, WATCHDOG, STOPPING (sd_notify(3)). Silent without one."""

import contextlib
import socket


class Notifier:
    """Sends datagrams to the manager's socket. Never blocks, never fails: the manager's watchdog notices silence."""

    def __init__(self, address: str | None) -> None:
        """Take NOTIFY_SOCKET's value; a leading `@` is an abstract socket, None means that nobody listens."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._socket = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def ready(self, status: str) -> None:
        """The agent has started: identity and journal are open and the channel is being dialled."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The agent has begun to stop."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, message: str) -> None:
        if self._socket is not None and self._address:
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)
