"""XmlPlane: the XML API of Cloud Storage. It checks `x-goog-hash: crc32c=` where it is sent, and tells its own."""

import re
from typing import ClassVar

from appliance.sim.call import Call, Refusal
from appliance.sim.gcp.tokens import Tokens
from appliance.sim.objects.plane import ObjectPlane
from appliance.sim.objects.records import Object
from appliance.sim.objects.shelf import Shelf, encoded_crc
from appliance.sim.stats import Stats

_CRC = re.compile(r"crc32c=([A-Za-z0-9+/=]+)")
_PERMISSIONS = {
    "initiate": ("storage.objects.create", "storage.multipartUploads.create"),
    "put-part": ("storage.objects.create",),
    "complete": ("storage.objects.create",),
    "list-parts": ("storage.multipartUploads.listParts",),
    "list-uploads": ("storage.multipartUploads.list",),
    "abort": ("storage.multipartUploads.abort",),
    "get": ("storage.objects.get",),
}


class XmlPlane(ObjectPlane):
    """Objects by path: `/BUCKET/OBJECT`."""

    service: ClassVar[str] = "gcs"
    meta: ClassVar[str] = "x-goog-meta-"

    def __init__(self, shelf: Shelf, tokens: Tokens, stats: Stats) -> None:
        super().__init__(shelf, stats)
        self._tokens = tokens

    def _check(self, call: Call, body: bytes) -> None:  # noqa: ARG002 - bodies are not signed
        self._tokens.check(call)

    def _allow(self, what: str, name: str) -> None:
        for permission in _PERMISSIONS[what]:
            self._tokens.allow(permission, name)

    def _begun(self, call: Call) -> None:
        """Nothing more is asked for."""

    def _check_sum(self, call: Call, crc: str) -> None:
        told = _CRC.search(call.header("x-goog-hash"))
        if told and told[1] != crc:
            message = f"The CRC32C you specified did not match what we computed: {crc}."
            raise Refusal(400, "BadDigest", message)

    def _sum_headers(self, crc: str) -> dict[str, str]:
        return {"x-goog-hash": f"crc32c={crc}"}

    def _object_headers(self, call: Call, found: Object) -> dict[str, str]:
        wanted = call.query.get("generation")
        if wanted and wanted != str(found.generation):
            raise Refusal(404, "NoSuchKey", f"No such generation: {wanted}")
        return {
            "x-goog-generation": str(found.generation),
            **self._sum_headers(encoded_crc(found.crc32c)),
        }
