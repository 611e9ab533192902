"""Building key manifests: the list of the control plane's keys that the root key signs. No files, no clock.

The root key is needed here and nowhere else, so this runs where the root key is: offline.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from appliance.keyfiles import KeyFile, KeyFileError
from protocol.keys import KeyRing
from protocol.messages import Kind, Manifest, ManifestKey, Revocation
from protocol.signed import SigningKey, sign

MANIFEST_ROLES = ("command", "time", "record", "release")
DAY_MS = 24 * 3600 * 1000
BACKDATE_MS = 3600 * 1000
"""Keys count from one hour before the manifest was made: the signer's clock may be behind this machine's."""

ManifestRole = Literal["command", "time", "record", "release"]
Running = Literal["stop", "finish"]


@dataclass(frozen=True, slots=True)
class ManifestPlan:
    """What a manifest is to say.

    Attributes:
        serial: Higher than every manifest before; appliances refuse a lower one.
        issued: ms UTC.
        days: How long its keys are valid.
        revoked: Key name -> what becomes of running jobs that the key ordered.
        floor: Replaces the appliances' lowest believed time, downwards too.
        next_root: Public root key that will follow.
    """

    serial: int
    issued: int
    days: int
    revoked: Mapping[str, Running]
    floor: int | None = None
    next_root: bytes | None = None


def sign_manifest(root: SigningKey, keys: Sequence[KeyFile], plan: ManifestPlan) -> bytes:
    """Sign a key manifest and return its envelope, checked as an appliance would.

    Raises:
        KeyFileError: A key has no role of a manifest, is listed twice, or a revoked one is not listed.
        ProtocolError: The manifest would not be accepted.
    """
    _check(keys, plan.revoked)
    manifest = Manifest(
        v=1,
        serial=plan.serial,
        issued=plan.issued,
        keys=tuple(_entry(key, plan) for key in keys),
        floor=plan.floor,
        next_root=plan.next_root,
    )
    data = sign(Kind.MANIFEST, manifest, root)
    KeyRing.open(data, root=root.public)
    return data


def describe(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest as plain values for people and `--json`."""
    return {
        "serial": manifest.serial,
        "issued": manifest.issued,
        "floor": manifest.floor,
        "next_root": manifest.next_root.hex() if manifest.next_root else None,
        "keys": [_plain(key) for key in manifest.keys],
    }


def _check(keys: Iterable[KeyFile], revoked: Mapping[str, Running]) -> None:
    names = [key.id for key in keys]
    for key in keys:
        if key.role not in MANIFEST_ROLES:
            msg = f"{key.id}: a {key.role} key is not listed in a key manifest"
            raise KeyFileError(msg)
    if len(set(names)) != len(names):
        msg = "a key is given twice; one key has one role"
        raise KeyFileError(msg)
    missing = sorted(set(revoked) - set(names))
    if missing:
        msg = f"revoked but not given with --key: {', '.join(missing)}; a revoked key stays listed"
        raise KeyFileError(msg)


def _entry(key: KeyFile, plan: ManifestPlan) -> ManifestKey:
    running = plan.revoked.get(key.id)
    role: ManifestRole = key.role  # type: ignore[assignment]  # _check has seen it
    return ManifestKey(
        id=key.id,
        pub=key.public,
        role=role,
        tenants=(key.tenant,),
        nbf=max(plan.issued - BACKDATE_MS, 0),
        exp=plan.issued + plan.days * DAY_MS,
        revoked=Revocation(since=plan.issued, running=running) if running else None,
    )


def _plain(key: ManifestKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "role": key.role,
        "tenants": list(key.tenants),
        "public": key.pub.hex(),
        "nbf": key.nbf,
        "exp": key.exp,
        "revoked": key.revoked.running if key.revoked else None,
    }
