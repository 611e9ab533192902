"""Target `azure-page-blob`: a fixed VHD as a page blob of a storage account.

Control by azure-storage-blob (`sdk.py`), pages over the raw wire (`pages.py`). The blob has the padded size plus the
512 bytes of the footer; owner tags and the state (`writing`, `final`, `unverified`) are its metadata. `replace` writes
beside the old blob and swaps by a server-side copy once the new one was verified.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote, urlsplit

from agent.secrets import Secret
from agent.targets.azure.authorizer import Authorizer
from agent.targets.azure.clouds import CLOUDS
from agent.targets.azure.connections import Connections
from agent.targets.azure.credentials import (
    STORAGE_SCOPE,
    AccountKey,
    BearerAuthorizer,
    Credential,
    FixedSas,
    GivenSas,
    SasAuthorizer,
    blob_sas,
    read_credential,
)
from agent.targets.azure.entra import Principal, TokenSource
from agent.targets.azure.footer import FOOTER_SIZE, footer_for
from agent.targets.azure.sdk import COPY_POLL_S, BlobControl, BlobState, sdk_credential
from agent.targets.base import (
    Artifact,
    Checksum,
    DiskSpec,
    Intent,
    IntentLog,
    Preflight,
)
from agent.targets.errors import DiskLost, SizeDiffers
from agent.targets.http.settings import HttpSettings
from agent.targets.limits import RULES
from agent.targets.naming import Choice, Found, choose_name, nothing_known
from agent.targets.tags import Tagger
from agent.threads import Stop
from imaging.digest import DigestBuilder
from imaging.extent import Extent
from protocol.ops import AzurePageBlob

KIND = "azure.page-blob"
_STATE = "imageport-state"
UNVERIFIED = "unverified"
"""State of what failed verification."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the blob is written now and what it is called in the end (the same unless it replaces one)."""

    work: str
    final: str


class PageBlobDisk:
    """One blob being written."""

    def __init__(
        self,
        target: "PageBlobTarget",
        place: _Place,
        spec: DiskSpec,
        state: BlobState,
        *,
        resumed: bool,
    ) -> None:
        self._target = target
        self._place = place
        self._spec = spec
        self._object_id = state.object_id
        self._wire = target.connections.wire(target.authorizer(place.work), f"blob {place.work}")
        self.resumed = resumed

    @property
    def checksum(self) -> Checksum | None:
        """The service's checksum of a write, while it takes one."""
        return self._wire.checksum

    def put(self, offset: int, data: memoryview, checksum: str | None, stop: Stop) -> None:
        """Write pages."""
        self._wire.put(offset, data, checksum, stop)

    async def seal(self, digest: DigestBuilder) -> None:  # noqa: ARG002 - it checks writes only
        """Write the footer, and see that nobody resized the blob: behind more bytes it would be no footer."""
        size = self._spec.padded_size
        footer = footer_for(size, self._spec.tagger.origin, now_ms=self._target.now_ms())
        await self._wire.put_footer(size, footer)
        await self._target.check_size(self._place.work, self._spec)

    def allocated(self, offset: int, length: int) -> AsyncIterator[Extent]:
        """Ask for the page ranges."""
        return self._wire.ranges(offset, length)

    async def read(self, offset: int, buffer: memoryview) -> None:
        """Read pages."""
        await self._wire.read(offset, buffer)

    async def reject(self) -> None:
        """Say so in the metadata, and take the footer away: what is no VHD becomes nobody's disk by mistake."""
        await self._target.mark(self._place.work, self._spec, UNVERIFIED)
        await self._wire.put_footer(self._spec.padded_size, bytes(FOOTER_SIZE))

    async def finish(self) -> Artifact:
        """Swap if it replaces another, and mark it final."""
        final = await self._target.make_final(self._place, self._spec)
        return Artifact(
            KIND,
            final.object_id,
            {
                "name": self._place.final,
                "size": final.size,
                "service_checksum": self._wire.checksum_name,
            },
        )

    async def close(self) -> None:
        """The session belongs to the target."""


class PageBlobTarget:
    """One container of one account, for one job."""

    kind: ClassVar[str] = "azure-page-blob"
    limits = RULES["azure-page-blob"].transfer

    def __init__(
        self,
        ref: AzurePageBlob,
        secret: dict[str, Secret],
        *,
        http: HttpSettings,
        now_ms: Callable[[], int],
        clock: Callable[[], float],
        checksums: bool = True,
        token_file: str | None = None,
    ) -> None:
        """Use one credential; no request is sent before `open`.

        Raises:
            CredentialRefused: The secret is of no known kind.
        """
        self._ref = ref
        self._endpoint = ref.endpoint.rstrip("/")
        self._credential: Credential = read_credential(secret)
        self.now_ms = now_ms
        self._clock = clock
        self._account = _account_of(self._endpoint)
        self._tokens = (
            TokenSource(self._credential, http, CLOUDS["public"].authority, token_file=token_file)
            if isinstance(self._credential, Principal)
            else None
        )
        self.connections = Connections(http, checksums)
        self._control: BlobControl | None = None

    @property
    def control(self) -> BlobControl:
        """The SDK's side."""
        if self._control is None:
            credential = sdk_credential(self._credential, self._tokens, self._account)
            self._control = BlobControl(
                self.connections.session, self._endpoint, self._ref.container, credential
            )
        return self._control

    def authorizer(self, blob: str) -> Authorizer:
        """Return what authorises page requests on one blob."""
        url = self.url(blob)
        match self._credential:
            case AccountKey(key=key):
                return SasAuthorizer(
                    url,
                    lambda number: blob_sas(
                        self._account,
                        self._ref.container,
                        blob,
                        key,
                        number=number,
                        now_ms=self.now_ms(),
                    ),
                    self._clock,
                )
            case GivenSas(query=query):
                return FixedSas(url, query)
            case Principal():
                assert self._tokens is not None
                return BearerAuthorizer(url, self._tokens, STORAGE_SCOPE)

    def url(self, blob: str) -> str:
        """Return a blob's URL without query."""
        return f"{self._endpoint}/{self._ref.container}/{quote(blob, safe='/')}"

    async def open(self, spec: DiskSpec, intents: IntentLog) -> PageBlobDisk:
        """Create the blob, or find this line's own."""
        choice = await self._choose(
            spec, known=lambda name: self._known(name, spec, intents) is not None
        )
        place = _Place(
            self._work_name(choice.name, spec) if choice.replaces else choice.name, choice.name
        )
        intent = Intent(KIND, self._scope(), place.work)
        known = intents.known(intent)
        state = await self.control.state(place.work) if known is not None else None
        if state is None or not self._is_line(state, place.work, spec.tagger):
            state = await self._create(place, spec, intents, intent)
            return PageBlobDisk(self, place, spec, state, resumed=False)
        _check(state, known or "", spec, place.work)
        return PageBlobDisk(self, place, spec, state, resumed=True)

    async def preflight(self, spec: DiskSpec) -> Preflight:
        """Look which name is free; a storage account tells nobody what else a credential may do."""
        choice = await self._choose(spec)
        made = f"page blob {self._ref.container}/{choice.name} of {spec.padded_size + FOOTER_SIZE} bytes"
        unprobed = ("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",)
        return Preflight(choice.name, (made,), unprobed=unprobed)

    async def make_final(self, place: _Place, spec: DiskSpec) -> BlobState:
        """Swap (server-side copy, then the work blob goes) and mark final; each step may have happened before."""
        tags = self._tags_for(place.final, spec, "final")
        if place.work != place.final and await self.control.state(place.work) is not None:
            url, _ = await self.authorizer(place.work).request()
            await self.control.begin_copy(url, place.final, _metadata(tags))
            while (state := await self._must(place.final)).copying:  # noqa: ASYNC110 - the service is polled
                await asyncio.sleep(COPY_POLL_S)
            _check_size(state, spec, place.final)
            await self.control.delete(place.work)
        await self.control.set_metadata(place.final, _metadata(tags))
        return await self._must(place.final)

    async def mark(self, name: str, spec: DiskSpec, state: str) -> None:
        """Write owner tags and state into the metadata."""
        await self.control.set_metadata(name, _metadata(self._tags_for(name, spec, state)))

    async def check_size(self, name: str, spec: DiskSpec) -> None:
        """Raise SizeDiffers unless the blob has the disk's size and its footer's."""
        _check_size(await self._must(name), spec, name)

    async def covers(self, intent: Intent) -> bool:
        """See `DiskTarget`."""
        return intent.scope == self._scope()

    async def discard(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        """Delete a blob of this line."""
        state = await self.control.state(intent.name)
        if state is None:
            return None
        where = f"blob {self._ref.container}/{intent.name}"
        if not self._is_line(state, intent.name, tagger):
            return f"{where} carries another owner tag"
        if object_id and state.object_id != object_id:
            return f"{where} is another blob than the one created"
        await self.control.delete(intent.name)
        return None

    async def close(self) -> None:
        """Close the sessions."""
        if self._tokens is not None:
            await self._tokens.close()
        await self.connections.close()

    def _known(self, name: str, spec: DiskSpec, intents: IntentLog) -> str | None:
        for work in (name, self._work_name(name, spec)):
            known = intents.known(Intent(KIND, self._scope(), work))
            if known is not None:
                return known
        return None

    def _work_name(self, name: str, spec: DiskSpec) -> str:
        return f"{name}.imageport-{spec.tagger.origin[:12]}"

    async def _choose(self, spec: DiskSpec, known: Callable[[str], bool] = nothing_known) -> Choice:
        """Return the name that the disk gets."""
        return await choose_name(
            self._ref.blob,
            spec.if_exists,
            known=known,
            look=lambda name: self._look(name, spec.tagger),
            can_replace=True,
        )

    async def _look(self, name: str, tagger: Tagger) -> Found | None:
        state = await self.control.state(name)
        if state is None:
            return None
        tags = _tags(state.metadata)
        ours = tagger.read(tags, self._scope(), name) is not None
        return Found(ours, tags.get(_STATE) == "final", f"blob {self._ref.container}/{name}")

    async def _create(
        self, place: _Place, spec: DiskSpec, intents: IntentLog, intent: Intent
    ) -> BlobState:
        await intents.record(intent)
        tags = self._tags_for(place.work, spec, "writing")
        await self.control.create(place.work, spec.padded_size + FOOTER_SIZE, _metadata(tags))
        state = await self._must(place.work)
        await intents.created(intent, state.object_id)
        return state

    async def _must(self, name: str) -> BlobState:
        state = await self.control.state(name)
        if state is None:
            msg = f"blob {self._ref.container}/{name} is gone"
            raise DiskLost(msg, name=name)
        return state

    def _tags_for(self, name: str, spec: DiskSpec, state: str) -> dict[str, str]:
        return {**spec.tagger.tags(self._scope(), name), _STATE: state}

    def _is_line(self, state: BlobState, name: str, tagger: Tagger) -> bool:
        return tagger.is_this_line(_tags(state.metadata), self._scope(), name)

    def _scope(self) -> dict[str, str]:
        account = f"{self._account}/{self._ref.container}"
        return {"provider": "azure", "account": account, "region": "-"}


def _check(state: BlobState, known: str, spec: DiskSpec, name: str) -> None:
    if known and known != state.object_id:
        msg = f"blob {name} is not the one that this job created"
        raise DiskLost(msg, name=name)
    _check_size(state, spec, name)


def _check_size(state: BlobState, spec: DiskSpec, name: str) -> None:
    expected = spec.padded_size + FOOTER_SIZE
    if state.size != expected:
        msg = f"blob {name} has {state.size} bytes, expected {expected}"
        raise SizeDiffers(msg, name=name, found=state.size, expected=expected)


def _account_of(endpoint: str) -> str:
    """Return the account's name: the path's first part on an emulator, the host's first label else."""
    parts = urlsplit(endpoint)
    return parts.path.strip("/").split("/")[0] or (parts.hostname or "").split(".")[0]


def _metadata(tags: dict[str, str]) -> dict[str, str]:
    """Metadata names are C# identifiers: no hyphen."""
    return {name.replace("-", "_"): value for name, value in tags.items()}


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    return {name.lower().replace("_", "-"): value for name, value in metadata.items()}
