"""What a key manifest allows: role, tenant, dates, revocation, and no way back."""

import msgspec
import pytest

from protocol.errors import (
    BadField,
    BadSignature,
    KeyNotValid,
    KeyRevoked,
    ManifestRollback,
    UnknownKey,
    WrongKeyTenant,
    WrongRole,
)
from protocol.keys import ROLE_OF_KIND, KeyRing
from protocol.messages import Kind, Manifest, Revocation, Role
from protocol.signed import parse_envelope, sign
from tests.support import protocol_world as w

COMMAND = parse_envelope(w.signed_command(), limit=10**6)


def _open(shown: Manifest, trusted: KeyRing | None = None) -> KeyRing:
    return KeyRing.open(sign(Kind.MANIFEST, shown, w.ROOT), root=w.ROOT.public, trusted=trusted)


def test_every_kind_has_one_role() -> None:
    assert set(ROLE_OF_KIND) == set(Kind)
    assert set(ROLE_OF_KIND.values()) == set(Role)


def test_only_the_pinned_root_signs_manifests() -> None:
    with pytest.raises(BadSignature):
        KeyRing.open(sign(Kind.MANIFEST, w.manifest(), w.COMMAND), root=w.ROOT.public)


def test_a_newer_manifest_replaces_and_the_same_one_stays() -> None:
    ring = w.ring()
    assert _open(w.manifest(), ring).manifest == ring.manifest
    assert _open(w.manifest(serial=2), ring).manifest.serial == 2


@pytest.mark.parametrize(
    "shown",
    [w.manifest(serial=1), w.manifest(serial=2, issued=w.T0 + 1)],
    ids=["lower serial", "another of the same serial"],
)
def test_a_manifest_never_goes_back(shown: Manifest) -> None:
    with pytest.raises(ManifestRollback):
        _open(shown, w.ring(w.manifest(serial=2)))


def test_the_same_manifest_in_another_envelope_is_the_same() -> None:
    ring = w.ring()
    plain = msgspec.msgpack.decode(ring.raw)
    turned = msgspec.msgpack.encode(dict(reversed(plain.items())))
    assert turned != ring.raw
    assert KeyRing.open(turned, root=w.ROOT.public, trusted=ring).manifest == ring.manifest


@pytest.mark.parametrize("field", ["id", "pub"])
def test_a_manifest_names_a_key_once(field: str) -> None:
    first, second, *_ = w.manifest().keys
    double = msgspec.structs.replace(second, **{field: getattr(first, field)})
    with pytest.raises(BadField):
        _open(w.manifest(keys=(first, double)))


def test_a_key_signs_its_roles_kinds_only() -> None:
    ring = w.ring()
    assert ring.key(COMMAND, Kind.COMMAND).id == "command-1"
    for kind in Kind:
        if ROLE_OF_KIND[kind] is not Role.COMMAND:
            with pytest.raises(WrongRole):
                ring.key(COMMAND, kind)


def test_no_signature_moves_to_another_kind_of_its_role() -> None:
    with pytest.raises(BadSignature):
        w.ring().key(COMMAND, Kind.RECEIPT)


def test_a_key_that_the_manifest_lacks_is_unknown() -> None:
    with pytest.raises(UnknownKey):
        w.ring(w.manifest(keys=())).key(COMMAND, Kind.COMMAND)


def test_the_key_id_is_only_a_hint() -> None:
    forged = msgspec.structs.replace(
        parse_envelope(sign(Kind.COMMAND, w.command(), w.DEVICE), limit=10**6), k=w.COMMAND.kid
    )
    with pytest.raises(BadSignature):
        w.ring().key(forged, Kind.COMMAND)


def test_a_key_signs_for_its_tenants_only() -> None:
    row = w.manifest_key("command-1", w.COMMAND, "command", tenants=("acme",))
    ring = w.ring(w.manifest(keys=(row,)))
    assert ring.key(COMMAND, Kind.COMMAND, tenant="acme") == row
    with pytest.raises(WrongKeyTenant):
        ring.key(COMMAND, Kind.COMMAND, tenant="other")


@pytest.mark.parametrize(
    ("issued", "expires", "valid"),
    [
        (w.T0, w.T0, True),
        (w.T0, w.T0 + 10 * w.YEAR_MS, True),
        (w.T0 - 1, w.T0, False),
        (w.T0, w.T0 + 10 * w.YEAR_MS + 1, False),
        (w.T0 + 2, w.T0 + 1, False),
    ],
)
def test_dates_lie_inside_the_keys(issued: int, expires: int, valid: bool) -> None:
    ring = w.ring()
    key = ring.manifest.keys[0]
    if valid:
        ring.check_dates(key, issued=issued, expires=expires)
    else:
        with pytest.raises(KeyNotValid):
            ring.check_dates(key, issued=issued, expires=expires)


def test_a_record_opens_unless_its_key_was_revoked() -> None:
    data = sign(Kind.RECORD, w.record(), w.RECORD)
    assert w.ring().open_record(data) == w.record()
    rows = tuple(
        msgspec.structs.replace(row, revoked=Revocation(since=0, running="stop"))
        for row in w.manifest().keys
    )
    with pytest.raises(KeyRevoked):
        w.ring(w.manifest(keys=rows)).open_record(data)
