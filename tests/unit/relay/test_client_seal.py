import msgspec
import pytest

from protocol.sealing import Sealed, SealScope, unseal
from relay.client_seal import seal_spec, secret_paths
from relay.errors import ClientError
from tests.support.protocol_world import seal_key_of

VAULT = seal_key_of("vault")
SPEC = {
    "request": "ab" * 16,
    "tenant": "acme",
    "op": "upload",
    "args": {
        "source": {"kind": "smb", "credential": {"username": "u", "password": "p"}},
        "target": {"kind": "azure-disk", "credential": {"client_secret": "s"}},
    },
}


def test_secrets_are_the_sealed_fields_of_the_ops_struct() -> None:
    assert secret_paths("upload", 1) == [("source", "credential"), ("target", "credential")]
    assert secret_paths("sweep", 1) == [("target", "credential")]
    assert secret_paths("diagnostics", 1) == []
    assert secret_paths("unknown", 1) == []


def test_each_secret_is_sealed_for_its_own_field_request_and_caller() -> None:
    args = seal_spec(SPEC, VAULT.public, caller="c0ffee")["args"]
    for place, clear in (
        ("source", {"username": "u", "password": "p"}),
        ("target", {"client_secret": "s"}),
    ):
        sealed = msgspec.convert(args[place]["credential"], Sealed)
        scope = SealScope("acme", "c0ffee", b"\xab" * 16, f"{place}.credential")
        assert msgspec.msgpack.decode(unseal(sealed, [VAULT], scope)) == clear
    assert SPEC["args"]["source"]["credential"] == {"username": "u", "password": "p"}


def test_what_has_no_secret_needs_no_vault() -> None:
    spec = {**SPEC, "args": {"source": {"kind": "local", "name": "x"}}}
    assert seal_spec(spec, None, caller="") == spec
    with pytest.raises(ClientError, match=r"source\.credential"):
        seal_spec(SPEC, None, caller="")


def test_secret_that_is_no_object_is_refused_without_being_repeated() -> None:
    spec = {**SPEC, "args": {"source": {"credential": "hunter2"}}}
    with pytest.raises(ClientError) as caught:
        seal_spec(spec, VAULT.public, caller="")
    assert "hunter2" not in str(caught.value)
