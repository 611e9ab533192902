"""What we use of smbprotocol behind its public names: a new release that changes one of these fails here first."""

import inspect
from importlib.metadata import version

import pytest
from smbprotocol.connection import Connection, Request
from smbprotocol.session import Session
from smbprotocol.transport import Tcp
from smbprotocol.tree import TreeConnect

from agent.shares.smb.connection import StrictConnection

CONNECTION_NAMES = (
    "cipher_id",
    "dialect",
    "max_read_size",
    "max_write_size",
    "outstanding_requests",
    "preauth_integrity_hash_value",
    "preauth_integrity_session_hash_value",
    "sequence_lock",
    "sequence_window",
    "session_table",
    "signing_algorithm_id",
    "supports_encryption",
    "supports_multi_credit",
    "_t_exc",
)


@pytest.mark.parametrize("name", CONNECTION_NAMES)
def test_a_connection_has_the_state_that_we_read(name: str) -> None:
    assert name in vars(Connection(None, "server"))


@pytest.mark.parametrize("name", ["_sock", "_sock_lock", "_close_lock", "connected", "timeout"])
def test_a_transport_has_the_state_that_we_use(name: str) -> None:
    assert name in vars(Tcp("server", 445))


@pytest.mark.parametrize(
    "name",
    [
        "signing_key", "encryption_key", "decryption_key", "encrypt_data", "session_id",
        "preauth_integrity_hash_value",
    ],
)  # fmt: skip
def test_a_session_has_the_keys_that_we_verify_with(name: str) -> None:
    session = Session(Connection(None, "server"), username="u", password="p")
    assert name in vars(session)
    assert "encrypt_data" in vars(TreeConnect(session, r"\\server\share"))


@pytest.mark.parametrize(
    "name", ["_process_message_thread", "_check_worker_running", "receive", "send"]
)
def test_what_we_override_is_still_called_that_and_takes_the_same(name: str) -> None:
    theirs = inspect.signature(getattr(Connection, name))
    ours = inspect.signature(getattr(StrictConnection, name))
    assert list(ours.parameters) == list(theirs.parameters)


def test_the_receiving_thread_runs_our_loop() -> None:
    assert "self._process_message_thread" in inspect.getsource(Connection.connect)
    assert "Tcp(" in inspect.getsource(Connection.connect)


def test_a_request_takes_what_we_add_to_it() -> None:
    assert not hasattr(Request, "__slots__")
    source = inspect.getsource(Request.__init__)
    for name in ("response", "response_event", "response_event_lock"):
        assert f"self.{name} =" in source


def test_the_release_is_one_that_was_looked_at() -> None:
    assert version("smbprotocol").startswith("1.17."), "read its changes, then this file"
