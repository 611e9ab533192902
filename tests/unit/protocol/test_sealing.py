"""Sealed secrets open for one appliance, one command and one field, and for nobody else."""

from dataclasses import replace

import msgspec
import pytest

from protocol.errors import SealBroken, SealKeyUnknown
from protocol.sealing import SealKey, SealScope, seal, unseal
from tests.support import protocol_world as w

SCOPE = SealScope("acme", "site-1", b"I" * 16, "target.credential")
SEALED = seal(b"secret", w.SEAL.public, SCOPE)
OLD = SealKey.from_bytes(b"o" * 32)


def test_any_of_our_keys_opens_what_was_sealed_to_it() -> None:
    assert unseal(SEALED, [OLD, w.SEAL], SCOPE) == b"secret"
    assert b"secret" not in SEALED.ct


@pytest.mark.parametrize(
    "scope",
    [
        replace(SCOPE, tenant="other"),
        replace(SCOPE, appliance="site-2"),
        replace(SCOPE, command=b"J" * 16),
        replace(SCOPE, path="source.credential"),
    ],
    ids=["tenant", "appliance", "command", "path"],
)
def test_a_secret_cannot_be_moved(scope: SealScope) -> None:
    with pytest.raises(SealBroken):
        unseal(SEALED, [w.SEAL], scope)


def test_a_damaged_secret_does_not_open() -> None:
    damaged = msgspec.structs.replace(SEALED, ct=SEALED.ct[:-1] + bytes([SEALED.ct[-1] ^ 1]))
    with pytest.raises(SealBroken):
        unseal(damaged, [w.SEAL], SCOPE)


def test_a_key_that_is_not_held_is_named() -> None:
    with pytest.raises(SealKeyUnknown) as caught:
        unseal(SEALED, [OLD], SCOPE)
    assert caught.value.fields["kid"] == w.SEAL.kid.hex()


@pytest.mark.parametrize("public", [bytes(32), b"short"], ids=["weak", "short"])
def test_nothing_is_sealed_to_a_key_that_is_none(public: bytes) -> None:
    with pytest.raises(SealBroken):
        seal(b"secret", public, SCOPE)


def test_two_seals_of_one_secret_differ() -> None:
    assert seal(b"secret", w.SEAL.public, SCOPE).ct != SEALED.ct


def test_a_seal_key_never_prints_itself() -> None:
    key = SealKey.generate()
    assert SealKey.from_bytes(key.raw).public == key.public
    assert repr(key) == "SealKey()"
