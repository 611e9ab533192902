"""What the service manager hears of relay and signer."""

import socket

from relay.sdnotify import notify


def test_states_arrive_on_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel picks an abstract name
        address = "@" + manager.getsockname()[1:].decode()
        notify(address, "READY=1")
        notify(address, "STOPPING=1")
        assert [manager.recv(200) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


def test_without_a_manager_nothing_happens() -> None:
    for address in ("", "@nobody-listens-here"):
        notify(address, "READY=1")
