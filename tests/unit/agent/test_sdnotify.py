"""What the service manager hears."""

import socket

from agent.sdnotify import Notifier


def test_messages_arrive_on_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel picks an abstract name
        name = manager.getsockname()
        notifier = Notifier("@" + name[1:].decode())
        notifier.ready("up")
        notifier.alive()
        notifier.status("busy")
        notifier.stopping()
        heard = [manager.recv(200) for _ in range(4)]
        notifier.close()
    assert heard == [b"READY=1\nSTATUS=up", b"WATCHDOG=1", b"STATUS=busy", b"STOPPING=1"]


def test_without_a_manager_nothing_happens() -> None:
    for address in (None, "", "@nobody-listens-here"):
        notifier = Notifier(address)
        notifier.ready("up")
        notifier.close()
