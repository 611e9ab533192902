"""Secrets: never shown, opened only for their own command and field."""

import json
import pickle

import pytest

from agent.secrets import Secret, SecretUnreadable, reader
from protocol.codec import encode
from protocol.errors import SealBroken, SealKeyUnknown
from protocol.ops import LocalTarget, SmbShare, UploadArgs
from protocol.sealing import SealScope, seal
from tests.support import protocol_world as w

COMMAND = b"c" * 16
PATH = "source.credential"


def _args(clear: object, *, path: str = PATH, command: bytes = COMMAND) -> UploadArgs:
    sealed = seal(encode(clear), w.SEAL.public, SealScope(w.TENANT, w.APPLIANCE, command, path))
    share = SmbShare(server="nas", share="images", credential=sealed)
    return UploadArgs(source=share, path="a.vhdx", target=LocalTarget(name="d", disk="x"))


def _read(args: UploadArgs, *, keys: tuple = (w.SEAL,)) -> dict[str, Secret]:
    return reader(args, keys, tenant=w.TENANT, appliance=w.APPLIANCE, command=COMMAND)(PATH)


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("hunter2")
    shown = f"{secret} {secret!r} {secret:>20} {[secret]} {{'a': {secret}}}"
    assert "hunter2" not in shown
    assert secret.reveal() == "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_a_sealed_map_is_opened_on_demand() -> None:
    opened = _read(_args({"username": "u", "password": "p"}))
    assert {key: value.reveal() for key, value in opened.items()} == {
        "username": "u",
        "password": "p",
    }
    assert "'p'" not in repr(opened)


def test_no_secret_is_an_empty_map() -> None:
    args = _args({})
    read = reader(args, (w.SEAL,), tenant=w.TENANT, appliance=w.APPLIANCE, command=COMMAND)
    assert read("target.credential") == {}
    assert read("no.such.path") == {}


def test_a_secret_of_another_command_or_field_stays_shut() -> None:
    with pytest.raises(SealBroken):
        _read(_args({"a": "b"}, command=b"d" * 16))
    with pytest.raises(SealBroken):
        _read(_args({"a": "b"}, path="target.credential"))


def test_a_secret_for_a_key_that_is_not_ours_is_named() -> None:
    with pytest.raises(SealKeyUnknown):
        _read(_args({"a": "b"}), keys=(w.seal_key_of("other"),))


@pytest.mark.parametrize("clear", ["text", {"a": 1}, [1], {"a": {"b": "c"}}])
def test_what_is_no_map_of_strings_is_unreadable(clear: object) -> None:
    with pytest.raises(SecretUnreadable):
        _read(_args(clear))
