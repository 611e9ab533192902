"""GcpSim: the Google Cloud simulator put together: Cloud Storage, Compute Engine images, tokens, controls, one address.

async with GcpSim() as sim:
key_file = sim.service_account_key()
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from appliance.sim import records
from appliance.sim.admin import PREFIX as ADMIN_PREFIX
from appliance.sim.admin import AdminPlane, Handler
from appliance.sim.base import Served, Simulator
from appliance.sim.call import Call, Plane, Refusal
from appliance.sim.gcp import compute, jsonplane, sessions, tokens
from appliance.sim.gcp.compute import ComputePlane
from appliance.sim.gcp.jsonplane import JsonPlane
from appliance.sim.gcp.sessions import SessionPlane
from appliance.sim.gcp.shelf import GcpShelf
from appliance.sim.gcp.state import FILE_NAME, Identity, State, new_identity
from appliance.sim.gcp.tokens import TokenPlane, Tokens
from appliance.sim.gcp.xmlplane import XmlPlane

PROJECT = "imageport-sim"
BUCKET = "imageport-sim-images"
LOCATION = "EUROPE-WEST3"


class GcpSim(Simulator):
    """One simulated project with one bucket.

    Args:
        project: Its id.
        buckets: Names of the buckets that exist.
        lro_seconds: How long it takes until an image is ready.
        token_s: Seconds that access tokens last.
        served: See `Served`.
    """

    kind: ClassVar[str] = "gcp"
    body_most: ClassVar[int] = 80 << 20

    def __init__(
        self,
        *,
        project: str = PROJECT,
        buckets: tuple[str, ...] = (BUCKET,),
        lro_seconds: float = 0.0,
        token_s: float = tokens.LIFE_S,
        **served: Any,
    ) -> None:
        super().__init__(Served(**served))
        self._project = project
        self._buckets = buckets
        self._lro_seconds, self._token_s = lro_seconds, token_s

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._compute.url = self._sessions.url = self.url
        self._tokens.url = self.url + tokens.TOKEN_PATH
        return self

    def _open(self, directory: Path) -> Callable[[], object]:
        self.state = records.load(directory / FILE_NAME, State, self._fresh)
        self.shelf = GcpShelf(directory, self.state)
        self._tokens = Tokens(self.state, life_s=self._token_s)
        self._token_plane = TokenPlane(self.state, self._tokens)
        self._xml = XmlPlane(self.shelf, self._tokens, self.stats)
        self._json = JsonPlane(self.shelf, self._tokens, self._xml)
        self._sessions = SessionPlane(self.shelf, self._tokens, self.stats)
        self._compute = ComputePlane(self.shelf, self._tokens, seconds=self._lro_seconds)
        self._admin = AdminPlane(self, self._controls())
        return self.shelf.save

    def _fresh(self) -> State:
        return State(
            identity=new_identity(self._project), buckets=dict.fromkeys(self._buckets, LOCATION)
        )

    def _route(self, call: Call) -> Plane:
        path = call.path
        if path.startswith(ADMIN_PREFIX):
            return self._admin
        if path == tokens.TOKEN_PATH or path.startswith(tokens.METADATA):
            return self._token_plane
        if path.startswith(compute.PREFIXES):
            return self._compute
        if path.startswith(sessions.PREFIX):
            return self._sessions
        return self._json if path.startswith(jsonplane.PREFIXES) else self._xml

    def _busy(self, _operation: str) -> Refusal:
        return Refusal(503, "ServiceUnavailable", "Please reduce your request rate.")

    def _controls(self) -> dict[tuple[str, str], Handler]:
        def flip(_call: Call, wanted: dict[str, Any]) -> None:
            found = self.shelf.find(str(wanted["bucket"]), str(wanted["object"]))
            self.shelf.flip(found, int(wanted["offset"]))

        def permissions(_call: Call, wanted: dict[str, Any]) -> None:
            self.set_permissions(wanted.get("granted"))

        return {("POST", "flip"): flip, ("POST", "permissions"): permissions}

    @property
    def identity(self) -> Identity:
        """Names and secrets that clients need."""
        return self.state.identity

    @property
    def project(self) -> str:
        """The one project."""
        return self.identity.project

    @property
    def bucket(self) -> str:
        """The first bucket."""
        return next(iter(self.state.buckets))

    def service_account_key(self) -> str:
        """Return the account's key file, as the console hands it out."""
        return json.dumps(
            {
                "type": "service_account",
                "project_id": self.project,
                "private_key_id": "sim",
                "private_key": self.identity.private_key,
                "client_email": self.identity.email,
                "client_id": "1",
                "token_uri": self.url + tokens.TOKEN_PATH,
            }
        )

    def set_permissions(self, granted: list[str] | None) -> None:
        """Hold every caller to these permissions; None grants everything."""
        self.state.granted = granted
        self.shelf.save()

    def expire(self) -> None:
        """Expire every token; new ones work."""
        self.state.voided_before = self.clock()
        self.shelf.save()

    def image_disk(self, name: str) -> Path:
        """Return the file with an image's disk, for tests to look at."""
        return self.shelf.disk(self.state.images[name])

    def describe(self) -> dict[str, Any]:
        """Return what a client needs, as `imageport sim gcp` prints it."""
        return {
            "url": self.url,
            "project": self.project,
            "buckets": list(self.state.buckets),
            "location": LOCATION,
            "service_account_key": self.service_account_key(),
        }
