"""Copy Blob: a server-side copy of a page blob inside the account; the bytes are there at once, the status is not.

Copies from other accounts and incremental copies are refused by name.
"""

import uuid
from dataclasses import replace
from urllib.parse import parse_qsl, unquote, urlsplit

from appliance.sim.azure import pageblob
from appliance.sim.azure.access import AccountAccess
from appliance.sim.azure.conditions import invalid_header
from appliance.sim.azure.sas import Resource
from appliance.sim.azure.state import CopyRecord
from appliance.sim.azure.vault import PageBlob, Vault
from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.store import PageFile

_PIECE = 4 << 20


class Copies:
    """Starts copies; `seconds` is how long each of them stays pending."""

    def __init__(self, vault: Vault, access: AccountAccess, seconds: float) -> None:
        self._vault = vault
        self._access = access
        self._seconds = seconds

    def start(self, call: Call, key: str, metadata: dict[str, str]) -> Reply:
        """Copy `x-ms-copy-source` to `key`; without metadata of its own it takes the source's."""
        source = self._source(call)
        condition = call.header("x-ms-source-if-match")
        if condition and condition != source.etag:
            raise Refusal(
                412, "SourceConditionNotMet", "The source condition specified is not met."
            )
        pageblob.check_not_copying(call, source)
        made = self._vault.new_blob(source.size, call.now)
        copy_pages(source.file, made.file)
        made.record.content = dict(source.record.content)
        made.record.metadata = metadata or dict(source.record.metadata)
        made.record.sequence = source.record.sequence
        made.record.copy = CopyRecord(
            copy_id=str(uuid.uuid4()),
            source=call.header("x-ms-copy-source").partition("?")[0],
            started=call.now,
            due=call.now + self._seconds,
        )
        self._vault.put_blob(key, made)
        status = pageblob.copy_headers(made.record, call.now)
        told = {name: status[name] for name in ("x-ms-copy-id", "x-ms-copy-status")}
        return Reply(202, pageblob.versions(made) | told)

    def _source(self, call: Call) -> PageBlob:
        text = call.header("x-ms-copy-source")
        try:
            url = urlsplit(text)
        except ValueError as err:
            raise invalid_header("x-ms-copy-source", text, "no URL") from err
        account = call.path.split("/")[1]
        parts = unquote(url.path).split("/", 3)
        if not url.scheme or len(parts) < 4 or parts[1] != account:
            raise Refusal(
                400, "FeatureNotSupported", "Only copies inside the account are simulated."
            )
        resource = Resource("blob", parts[2], parts[3])
        query = dict(parse_qsl(url.query))
        if "sig" in query:
            self._access.require(replace(call, query=query, headers={}), resource, "r")
        elif not call.header("Authorization"):
            raise _unverified(401)
        source = self._vault.blobs.get(f"{resource.container}/{resource.blob}")
        if source is None:
            raise _unverified(404)
        return source


def _unverified(status: int) -> Refusal:
    return Refusal(status, "CannotVerifyCopySource", "Could not verify the copy source.")


def copy_pages(source: PageFile, made: PageFile) -> None:
    """Copy the written ranges, and only those."""
    for offset, length in source.pages.within(0, source.size):
        for start in range(offset, offset + length, _PIECE):
            size = min(_PIECE, offset + length - start)
            made.write(start, [source.read(start, size)])
