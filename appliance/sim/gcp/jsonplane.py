"""JsonPlane: the JSON API of Cloud Storage as far as the official SDK and this product use it; errors in JSON."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.gcp.tokens import Tokens
from appliance.sim.gcp.xmlplane import XmlPlane
from appliance.sim.objects.records import Object
from appliance.sim.objects.shelf import Shelf, encoded_crc

PREFIXES = ("/storage/v1/", "/download/storage/v1/")

_Handler = Callable[[Call, str, str], Reply]


class JsonPlane:
    """Buckets and objects by `/storage/v1/b/BUCKET/o/OBJECT`."""

    def __init__(self, shelf: Shelf, tokens: Tokens, xml: XmlPlane) -> None:
        self._shelf = shelf
        self._tokens = tokens
        self._xml = xml
        self._handlers: dict[str, _Handler] = {
            "get-bucket": self._get_bucket,
            "test-permissions": self._test,
            "list-objects": self._list,
            "get-object": self._get,
            "download": self._download,
            "delete-object": self._delete,
        }

    def operation(self, call: Call) -> str:
        """Name the operation: gcs.*."""
        return f"gcs.{_parsed(call)[0]}"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        await call.body.read()
        self._tokens.check(call)
        name, bucket, key = _parsed(call)
        handler = self._handlers.get(name)
        if handler is None:
            raise Refusal(400, "notSimulated", f"{call.method} {call.path} is not simulated.")
        return handler(call, bucket, key)

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into JSON."""
        return json_error(refusal)

    def _get_bucket(self, _call: Call, bucket: str, _key: str) -> Reply:
        location = self._shelf.bucket(bucket)
        self._tokens.allow("storage.buckets.get", bucket)
        return json_reply(
            200,
            {
                "kind": "storage#bucket",
                "id": bucket,
                "name": bucket,
                "location": location,
                "locationType": "region",
                "storageClass": "STANDARD",
                "metageneration": "1",
            },
        )

    def _test(self, call: Call, bucket: str, _key: str) -> Reply:
        self._shelf.bucket(bucket)
        wanted = call.repeated.get("permissions", [])
        return json_reply(200, {"permissions": self._tokens.granted(wanted)})

    def _list(self, call: Call, bucket: str, _key: str) -> Reply:
        self._shelf.bucket(bucket)
        self._tokens.allow("storage.objects.list", bucket)
        prefix = call.query.get("prefix", "")
        items = [
            resource(one)
            for one in self._shelf.state.objects.values()
            if one.bucket == bucket and one.name.startswith(prefix)
        ]
        return json_reply(200, {"kind": "storage#objects", "items": items})

    def _get(self, call: Call, bucket: str, key: str) -> Reply:
        found = self._shelf.find(bucket, key)
        self._tokens.allow("storage.objects.get", key)
        self._require_generation(call, found)
        return json_reply(200, resource(found))

    def _download(self, call: Call, bucket: str, key: str) -> Reply:
        call.path = f"/{bucket}/{key}"
        return self._xml._get(call, [])

    def _delete(self, call: Call, bucket: str, key: str) -> Reply:
        found = self._shelf.find(bucket, key)
        self._tokens.allow("storage.objects.delete", key)
        self._require_generation(call, found)
        self._shelf.delete(found)
        return Reply(204)

    def _require_generation(self, call: Call, found: Object) -> None:
        wanted = call.query.get("ifGenerationMatch")
        if wanted is not None and wanted != str(found.generation):
            message = "At least one of the pre-conditions you specified did not hold."
            raise Refusal(412, "conditionNotMet", message)


def _parsed(call: Call) -> tuple[str, str, str]:
    path = next((call.path.removeprefix(p) for p in PREFIXES if call.path.startswith(p)), "")
    pieces = path.split("/", 3)
    if len(pieces) < 2 or pieces[0] != "b":
        return "unknown", "", ""
    bucket, rest = unquote(pieces[1]), pieces[2:]
    if not rest:
        return ("get-bucket" if call.method == "GET" else "unknown"), bucket, ""
    if rest[0] == "iam":
        return "test-permissions", bucket, ""
    if rest == ["o"]:
        return ("list-objects" if call.method == "GET" else "unknown"), bucket, ""
    key = unquote(rest[1]) if len(rest) > 1 else ""
    media = call.query.get("alt") == "media"
    names = {"GET": "download" if media else "get-object", "DELETE": "delete-object"}
    return names.get(call.method, "unknown"), bucket, key


def resource(found: Object) -> dict[str, Any]:
    """Return an object as the JSON API has it."""
    when = datetime.fromtimestamp(found.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return {
        "kind": "storage#object",
        "id": f"{found.bucket}/{found.name}/{found.generation}",
        "name": found.name,
        "bucket": found.bucket,
        "generation": str(found.generation),
        "metageneration": str(found.metageneration),
        "contentType": found.content_type,
        "size": str(found.size),
        "crc32c": encoded_crc(found.crc32c),
        "etag": f"C{found.generation}",
        "metadata": found.metadata,
        "timeCreated": when,
        "updated": when,
        "storageClass": "STANDARD",
    }


def json_reply(status: int, body: object) -> Reply:
    """Return an answer of the JSON APIs."""
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    return Reply(status, headers, msgspec.json.encode(body))


def json_error(refusal: Refusal) -> Reply:
    """Return a refusal as the JSON APIs write it."""
    error = {
        "code": refusal.status,
        "message": refusal.message,
        "errors": [{"message": refusal.message, "domain": "global", "reason": refusal.code}],
    }
    reply = json_reply(refusal.status, {"error": error})
    reply.headers |= refusal.headers
    return reply
