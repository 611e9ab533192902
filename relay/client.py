"""The SDK: what a control plane's program, the command line and the demo use to order jobs and to watch them.

Secrets given in clear are sealed to the signer's vault key before anything is sent, and requests that order something
are signed with the caller's own key: the relay between can neither read nor alter them (PROTOCOL 7).

    async with RelayClient(url, api_key=key, caller=caller, vault_key=vault) as relay:
        job = await relay.submit({"tenant": "acme", "appliance": "site-1", "op": "upload", "args": {...}})
        async for event in job.watch():
            ...
"""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from protocol.caller import sign_request
from protocol.signed import SigningKey
from relay.client_http import Transport
from relay.client_seal import seal_spec
from relay.client_watch import JobEvent, watch
from relay.errors import ClientError

JSON = "application/json"
DAY_S = 24 * 3600


@dataclass(slots=True)
class RelayClient:
    """One relay, one API key. Use as an async context.

    Attributes:
        url: `https://host[:port]`; plain http only makes sense to this machine.
        api_key: The relay's key for this tenant.
        caller: Key that the signer knows; needed to order and to cancel.
        vault_key: Raw public vault key of the signer; needed when a spec has secrets in clear.
        ca_file: PEM file of CAs to trust instead of the system's.
        proxy: `http://[user:password@]host:port`.
        retrying: Hears why a request is sent again, before the wait (six attempts, about half a minute).
    """

    url: str
    api_key: str = field(repr=False, kw_only=True)
    caller: SigningKey | None = field(default=None, kw_only=True)
    vault_key: bytes | None = field(default=None, kw_only=True)
    ca_file: str | None = field(default=None, kw_only=True)
    proxy: str | None = field(default=None, repr=False, kw_only=True)
    retrying: Callable[[ClientError], None] = field(default=lambda _err: None, kw_only=True)
    _http: Transport = field(init=False)

    def __post_init__(self) -> None:
        self._http = Transport(
            self.url, self.api_key, self.ca_file, self.proxy, retrying=self.retrying
        )

    async def __aenter__(self) -> "RelayClient":
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.__aexit__(*exc)

    async def submit(self, spec: dict[str, Any], *, key: str = "") -> "JobHandle":
        """Order a job.

        Args:
            spec: The body of POST /v1/jobs; `request`, `args_v` and `valid_s` have defaults, secrets may be in clear.
            key: Idempotency-Key of an earlier attempt, to be sure that the order is given once; with it `spec` must
                carry the same `request` and secrets that were sealed for this caller (`seal_spec` makes such a spec).

        Raises:
            ClientError: Refused; `problem` is the signer's or the relay's code.
            Unreachable.
        """
        request = spec.get("request") or os.urandom(16).hex()
        full = {"args_v": 1, "valid_s": DAY_S, **spec, "request": request}
        caller = "" if self.caller is None else self.caller.kid.hex()
        body = msgspec.json.encode(seal_spec(full, self.vault_key, caller=caller))
        answer = await self._order("/v1/jobs", body, key or f"job-{request}")
        return _handle(self, answer)

    async def cancel(self, job: str, *, key: str = "") -> "JobHandle":
        """Order a job's end; returns the handle of the cancel, which is a command of its own."""
        part = _part(job)
        answer = await self._order(f"/v1/jobs/{part}/cancel", b"{}", key or f"cancel-{part}")
        return _handle(self, answer)

    async def job(self, job: str) -> dict[str, Any]:
        """Return one job."""
        return await self._get(f"/v1/jobs/{_part(job)}")

    async def jobs(self, *, appliance: str = "", state: str = "") -> AsyncIterator[dict[str, Any]]:
        """Yield the tenant's jobs, newest first, page by page."""
        async for item in self._pages("/v1/jobs", appliance=appliance, state=state):
            yield item

    async def watch(self, job: str, *, just_ordered: bool = False) -> AsyncIterator[JobEvent]:
        """Yield a job's events up to its end, over any number of broken connections.

        An unknown job is an error at once; with `just_ordered` the relay has 30 s to hear of it from the signer.
        """
        path = f"/v1/jobs/{_part(job)}/events"
        async for event in watch(self._http, path, just_ordered=just_ordered):
            yield event

    async def appliances(self) -> list[dict[str, Any]]:
        """Return the tenant's appliances."""
        return [item async for item in self._pages("/v1/appliances")]

    async def post_command(self, envelope: bytes) -> dict[str, Any]:
        """Queue a finished, signed envelope (a control plane that signs itself)."""
        headers = {"Content-Type": "application/msgpack"}
        answer = await self._http.request(
            "POST", "/v1/commands", body=envelope, headers=lambda: headers
        )
        return answer.json()

    async def keys(self) -> dict[str, Any]:
        """Return the key manifest: `serial`, and `manifest` (base64 of the envelope)."""
        return await self._get("/v1/keys")

    async def record(self, appliance: str) -> dict[str, Any]:
        """Return an appliance's record: `serial`, and `record` (base64 of the envelope)."""
        return await self._get(f"/v1/appliances/{_part(appliance)}/record")

    async def openapi(self) -> dict[str, Any]:
        """Return the relay's OpenAPI document."""
        return await self._get("/openapi.json")

    async def _get(self, path: str) -> dict[str, Any]:
        return (await self._http.request("GET", path)).json()

    async def _pages(self, path: str, **query: str) -> AsyncIterator[dict[str, Any]]:
        asked = {"limit": "200"} | {name: value for name, value in query.items() if value}
        while True:
            page = await self._get(f"{path}?{urlencode(asked)}")
            for item in page["items"]:
                yield item
            if not page["next"]:
                return
            asked["cursor"] = str(page["next"])

    async def _order(self, path: str, body: bytes, key: str) -> dict[str, Any]:
        caller = self.caller
        if caller is None:
            raise ClientError(
                "an order must be signed and this client has no caller key",
                fix="Give RelayClient the caller key that the signer knows.",
            )

        def headers() -> dict[str, str]:
            now_ms = int(self._http.clock() * 1000)
            signed = sign_request(
                caller, method="POST", path=path, body=body, idempotency_key=key, now_ms=now_ms
            )
            return {"Content-Type": JSON, **signed}

        return (await self._http.request("POST", path, body=body, headers=headers)).json()


@dataclass(frozen=True, slots=True)
class JobHandle:
    """A job that was ordered: durable at the signer, on its way through the relay."""

    client: RelayClient = field(repr=False)
    id: str
    digest: str
    appliance: str
    epoch: int
    seq: int

    async def watch(self) -> AsyncIterator[JobEvent]:
        """Yield the job's events up to its end."""
        async for event in self.client.watch(self.id, just_ordered=True):
            yield event

    async def show(self) -> dict[str, Any]:
        """Return the job as it is now."""
        return await self.client.job(self.id)

    async def cancel(self) -> "JobHandle":
        """Order its end."""
        return await self.client.cancel(self.id)


def _part(text: str) -> str:
    """Return a text as one part of a path, whatever is in it."""
    return quote(text, safe="")


def _handle(client: RelayClient, answer: dict[str, Any]) -> JobHandle:
    try:
        return JobHandle(
            client,
            answer["id"],
            answer["digest"],
            answer["appliance"],
            answer["epoch"],
            answer["seq"],
        )
    except KeyError as err:
        raise ClientError(f"the signer's answer lacks {err}") from err
