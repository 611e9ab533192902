"""Telling systemd that we are ready, alive or stopping: one datagram each. Does nothing where systemd does not ask."""

import socket


class Notifier:
    """Sends states to the socket that systemd named; "" sends nothing."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def send(self, state: str) -> None:
        """Send one state, as sd_notify(3) writes it. A lost one is not worth an error."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(0)
                sock.sendto(state.encode(), self._address)
        except OSError:
            return
