"""A signer without sockets for tests: keys, key manifest, SQLite connection, and a clock that the test moves."""

import json
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from protocol.caller import sign_request
from protocol.control import Statement
from protocol.enrol import Token, parse_token
from protocol.errors import ProtocolError
from protocol.ids import digest_of
from protocol.keys import KeyRing
from protocol.messages import (
    Kind,
    Manifest,
    ManifestKey,
    Revocation,
)
from protocol.sealing import SealKey, SealScope, seal
from protocol.signed import SigningKey, sign
from relay.errors import RelayError
from relay.signer import appliances, orders
from relay.signer.authority import Authority, Effects, store_manifest
from relay.signer.callers import add as add_caller
from relay.signer.handler import handle, refusal
from relay.signer.http import Request, Response
from relay.signer.keys import SignerKeys
from relay.signer.schema import migrate
from relay.signer.statements import hear
from tests.support.signer_device import TENANT, Device

T = TypeVar("T")


START_MS = 1_800_000_000_000


def manifest_of(
    keys: dict[str, SigningKey], *, serial: int, revoked: tuple[str, ...] = ()
) -> Manifest:
    """Return a manifest that lists these keys (name `role` or `role-n`) for every tenant, valid for a year."""
    return Manifest(
        v=1,
        serial=serial,
        issued=START_MS,
        keys=tuple(
            ManifestKey(
                id=name,
                pub=key.public,
                role=name.partition("-")[0],  # type: ignore[arg-type]
                tenants=("*",),
                nbf=START_MS - 3_600_000,
                exp=START_MS + 365 * 24 * 3_600_000,
                revoked=Revocation(since=START_MS, running="stop") if name in revoked else None,
            )
            for name, key in keys.items()
        ),
    )


class Counter:
    """Randomness that never repeats and is the same in every run."""

    def __init__(self) -> None:
        self._n = 0

    def __call__(self, size: int) -> bytes:
        self._n += 1
        return digest_of(self._n.to_bytes(8, "big"))[:size].ljust(size, b"\1")


@dataclass
class Kit:
    """The signer under test."""

    conn: sqlite3.Connection
    authority: Authority
    root: SigningKey
    signing: dict[str, SigningKey]
    caller: SigningKey
    vault: SealKey
    now_ms: int = START_MS
    keys_used: int = 0
    effects: Effects = field(default_factory=Effects)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run in a transaction, as Database does."""
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            result = work(self.conn)
        except BaseException:
            self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT")
        return result

    def send(self, request: Request) -> Response:
        """Send one request and remember its effects."""
        try:
            response, self.effects = self.run(lambda conn: handle(conn, self.authority, request))
        except (RelayError, ProtocolError) as err:
            self.effects = Effects()
            return refusal(err)
        return response

    def signed(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        key: str | None = None,
        caller: SigningKey | None = None,
        at: int | None = None,
    ) -> Request:
        """Return a request of a caller, through the relay."""
        data = b"" if body is None else json.dumps(body).encode()
        self.keys_used += 1
        headers = sign_request(
            caller or self.caller,
            method=method,
            path=target,
            body=data,
            idempotency_key=key if key is not None else f"key-{self.keys_used}",
            now_ms=self.now_ms if at is None else at,
        )
        lower = {name.lower(): value for name, value in headers.items()}
        return Request(method, target, lower, data, "relay")

    def call(self, method: str, target: str, body: Any = None, **options: Any) -> Response:
        """Send a signed request through the relay's door."""
        return self.send(self.signed(method, target, body, **options))

    def local(self, method: str, target: str, body: Any = None) -> Response:
        """Send a request through the unix socket's door."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        return self.send(Request(method, target, {}, data, "local"))

    def token(self, **spec: Any) -> Token:
        """Make an enrolment token."""
        response = self.local("POST", "/v1/tokens", {"tenant": TENANT, **spec})
        assert response.status == 201, response.body
        return parse_token(json.loads(response.body)["token"])

    def enrol(self, *, name: str = "site-1", token: Token | None = None) -> "Device":
        """Enrol a new device and return it, connected once (its hello was heard)."""
        device = Device(self, SigningKey.generate(), SealKey.generate())
        device.enrol(token or self.token(), name=name)
        device.hello()
        return device

    def spec(self, device: "Device", **changes: Any) -> dict[str, Any]:
        """Return a fresh job spec."""
        self.keys_used += 1
        base = {
            "request": self.keys_used.to_bytes(16, "big").hex(),
            "tenant": TENANT,
            "appliance": device.id,
            "op": "diagnostics",
            "args_v": 1,
            "args": {"checks": []},
        }
        return {**base, **changes}

    def order(self, device: "Device", **changes: Any) -> dict[str, Any]:
        """Have a job signed and return the answer's body."""
        response = self.call("POST", "/v1/jobs", self.spec(device, **changes))
        assert response.status == 202, response.body
        return dict(json.loads(response.body))

    def hear(self, kind: Any, device: "Device", env: bytes, report: bytes = b"") -> Effects:
        """Hand a statement to the signer."""
        statement = Statement(kind=kind, tenant=TENANT, appliance=device.id, env=env, report=report)
        self.effects = self.run(lambda conn: hear(conn, self.authority, statement))
        return self.effects

    def line(self, device: "Device") -> Any:
        """Return the signer's line to a device."""
        return appliances.get(self.conn, device.id).line

    def envelope(self, job: dict[str, Any]) -> bytes:
        """Return the envelope that counts for a job, as the outbox would push it."""
        order = orders.get(self.conn, bytes.fromhex(job["id"]), tenant=None)
        return orders.envelope(self.conn, order.digest)

    def epoch_order(self, device: "Device") -> bytes:
        """Return the newest epoch order for a device."""
        row = self.conn.execute(
            "SELECT env FROM epochs WHERE appliance = ? ORDER BY epoch DESC LIMIT 1", (device.id,)
        ).fetchone()
        return bytes(row["env"])

    def restart(self) -> None:
        """Forget what only the process knows."""
        self.conn.execute("DELETE FROM checked")

    def job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Read a job as its caller would."""
        response = self.call("GET", f"/v1/jobs/{job['id']}")
        assert response.status == 200, response.body
        return dict(json.loads(response.body))


def make_kit(path: str = ":memory:") -> Kit:
    """Make a signer with all keys and one caller who may order for TENANT."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.row_factory = sqlite3.Row
    migrate(conn)
    signing = {name: SigningKey.generate() for name in ("command", "command-2", "time", "record")}
    root, vault, caller = SigningKey.generate(), SealKey.generate(), SigningKey.generate()
    ring = KeyRing.open(sign(Kind.MANIFEST, manifest_of(signing, serial=1), root), root=root.public)
    keys = SignerKeys({key.public: key for key in signing.values()}, (vault,))
    kit = Kit(
        conn, Authority(keys, ring, lambda: kit.now_ms, Counter()), root, signing, caller, vault
    )
    store_manifest(conn, ring, at=START_MS)
    add_caller(conn, caller.public, name="ci", tenant=TENANT, role="operator", at=START_MS)
    return kit


def sealed_json(
    kit: Kit, clear: bytes, *, request: str, path: str, caller: str | None = None
) -> dict[str, str]:
    """Return a secret as a spec carries it: sealed to the vault key and the request."""
    sealed = seal(
        clear,
        kit.vault.public,
        SealScope(TENANT, caller or kit.caller.kid.hex(), bytes.fromhex(request), path),
    )
    return {"kid": b64encode(sealed.kid).decode(), "ct": b64encode(sealed.ct).decode()}
