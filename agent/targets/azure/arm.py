"""Azure Resource Manager for managed disks and what is made of them: a few calls, operations polled, raw REST.

Not azure-mgmt-compute: importing it and making a client costs seconds and 200 MB for five calls (docs/adr/0004); tests
drive the same simulator with that SDK, so both see the same service. API version 2023-10-02.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import aiohttp

from agent.errors import AgentError
from agent.retry import Retrier
from agent.targets.azure.entra import TokenSource
from agent.targets.azure.failures import failure
from agent.targets.errors import DiskLost, TargetRefused, TargetUnavailable
from agent.targets.http.body import whole
from agent.targets.http.failures import CONNECTION_ERRORS, connection_failure, retry_after

API_VERSION = "2023-10-02"
RBAC_VERSION = "2022-04-01"
POLL_S = 2.0
MAX_PAGES = 100
"""Of a list: a service that points on and on does not hold a job for ever."""
_MAX_ANSWER = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class ArmDisks:
    """The disks of one resource group.

    Attributes:
        session: Owned by the target.
        tokens: Of the job's principal.
        management: ARM endpoint without a slash at its end.
        audience: Of its tokens.
        group: `/subscriptions/<id>/resourceGroups/<name>`.
        retrier: For failing and throttled calls; each of them is idempotent.
    """

    session: aiohttp.ClientSession
    tokens: TokenSource
    management: str
    audience: str
    group: str
    retrier: Retrier

    def resource_id(self, disk: str) -> str:
        """Return a disk's ARM id."""
        return f"{self.group}/providers/Microsoft.Compute/disks/{disk}"

    async def get(self, disk: str) -> dict[str, Any] | None:
        """Return the disk's resource, None if there is none; `target.not-found` if its group is missing."""
        try:
            return (await self._call("GET", self.resource_id(disk), f"look at disk {disk}")).body
        except DiskLost:
            return None

    async def create(self, disk: str, resource: dict[str, Any]) -> None:
        """Create the disk and wait until it is provisioned."""
        await self._finish("PUT", self.resource_id(disk), f"create disk {disk}", resource)

    async def set_tags(self, disk: str, tags: dict[str, str]) -> None:
        """Replace the tags."""
        await self._finish("PATCH", self.resource_id(disk), f"tag disk {disk}", {"tags": tags})

    async def delete(self, disk: str) -> None:
        """Delete; a disk that is gone is no error."""
        try:
            await self._finish("DELETE", self.resource_id(disk), f"delete disk {disk}", None)
        except DiskLost:
            return

    async def fetch(self, path: str, version: str, what: str) -> dict[str, Any] | None:
        """Return another resource by its id, None if there is none."""
        try:
            return (await self._call("GET", self._url(path, version), f"look at {what}")).body
        except DiskLost:
            return None

    async def put(self, path: str, version: str, what: str, resource: dict[str, Any]) -> None:
        """Make another resource and wait until the operation has ended."""
        await self._finish("PUT", self._url(path, version), f"create {what}", resource)

    async def remove(self, path: str, version: str, what: str) -> None:
        """Delete another resource; one that is gone is no error."""
        try:
            await self._finish("DELETE", self._url(path, version), f"delete {what}", None)
        except DiskLost:
            return

    async def grant(self, disk: str, *, access: str, seconds: int) -> str:
        """Return a SAS URL for `Read` or `Write`."""
        path = f"{self.resource_id(disk)}/beginGetAccess"
        body = {"access": access, "durationInSeconds": seconds}
        what = f"get {access.lower()} access to disk {disk}"
        answer = await self._finish("POST", path, what, body)
        sas = answer.get("accessSAS") or answer.get("properties", {}).get("output", {}).get(
            "accessSAS"
        )
        if not isinstance(sas, str):
            msg = f"{what}: the answer holds no accessSAS"
            raise TargetUnavailable(msg)
        return sas

    async def revoke(self, disk: str) -> None:
        """End the open access; for an upload this is where the service looks at the footer."""
        await self._finish(
            "POST", f"{self.resource_id(disk)}/endGetAccess", f"end access to disk {disk}", None
        )

    async def lacking(self, actions: Sequence[str]) -> tuple[str, ...]:
        """Return those of the actions that the principal does not have on the resource group (RBAC)."""
        path = f"{self.group}/providers/Microsoft.Authorization/permissions"
        url = f"{self.management}{path}?api-version={RBAC_VERSION}"
        roles: list[dict[str, Any]] = []
        for _page in range(MAX_PAGES):
            body = (await self._call("GET", url, "list the principal's permissions")).body
            roles += (role for role in body.get("value") or [] if isinstance(role, dict))
            following = body.get("nextLink")
            if not isinstance(following, str) or not following:
                break
            url = following
        return tuple(action for action in actions if not any(_grants(r, action) for r in roles))

    async def _finish(
        self, method: str, path: str, what: str, body: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Call and poll until the operation has ended; return its result."""
        answer = await self._call(method, path, what, body)
        operation = answer.headers.get("Azure-AsyncOperation")
        location = answer.headers.get("Location")
        while answer.status == 202 or (operation and not _ended(answer, what)):
            await asyncio.sleep(_poll_delay(answer.headers))
            url = operation or location
            if url is None:
                msg = f"{what}: 202 without a place to poll"
                raise TargetUnavailable(msg)
            answer = await self._poll(url, what)
        return await self._result(answer, location, what)

    async def _poll(self, url: str, what: str) -> _Answer:
        answer = await self._call("GET", url, what)
        status = answer.body.get("status")
        if answer.status == 200 and status in ("Failed", "Canceled"):
            raise _failed(answer.body.get("error") or {}, what)
        return answer

    async def _result(self, answer: _Answer, location: str | None, what: str) -> dict[str, Any]:
        has_output = "accessSAS" in answer.body or "properties" in answer.body
        if answer.body.get("status") == "Succeeded" and not has_output and location:
            return (await self._call("GET", location, what)).body
        return answer.body

    async def _call(
        self, method: str, path: str, what: str, body: dict[str, Any] | None = None
    ) -> _Answer:
        return await self.retrier.call(lambda: self._once(method, path, what, body))

    async def _once(
        self, method: str, path: str, what: str, body: dict[str, Any] | None
    ) -> _Answer:
        url = path if path.startswith(("http://", "https://")) else self._url(path)
        if not url.startswith(self.management + "/"):
            msg = (
                f"{what}: the service points to {url.split('?')[0]}, which is not {self.management}"
            )
            raise TargetRefused(msg)
        token = await self.tokens.token(f"{self.audience}/.default")
        try:
            async with self.session.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                allow_redirects=False,
            ) as response:
                text = await whole(response, _MAX_ANSWER, what=what)
                return _checked(response, text, what)
        except CONNECTION_ERRORS as err:
            raise connection_failure(err, what=what) from err

    def _url(self, path: str, version: str = API_VERSION) -> str:
        return f"{self.management}{path}?api-version={version}"


def _grants(role: Mapping[str, Any], action: str) -> bool:
    def named(key: str) -> bool:
        return any(fnmatchcase(action.lower(), str(one).lower()) for one in role.get(key) or [])

    return named("actions") and not named("notActions")


def _checked(response: aiohttp.ClientResponse, text: bytes, what: str) -> _Answer:
    body = _object(text)
    if response.status >= 300:
        error = body.get("error") if isinstance(body.get("error"), dict) else {}
        code, message = str((error or {}).get("code", "")), str((error or {}).get("message", ""))
        raise failure(response.status, code, message, response.headers, what=what)
    return _Answer(response.status, dict(response.headers), body)


def _object(text: bytes) -> dict[str, Any]:
    try:
        plain = json.loads(text) if text.strip() else {}
    except ValueError:
        return {}
    return plain if isinstance(plain, dict) else {}


def _ended(answer: _Answer, what: str) -> bool:
    """Whether an operation's status document says that it ended (a resource itself has no `status`)."""
    status = answer.body.get("status")
    if status in ("Failed", "Canceled"):
        raise _failed(answer.body.get("error") or {}, what)
    return status == "Succeeded"


def _failed(error: Mapping[str, Any], what: str) -> AgentError:
    code, message = str(error.get("code", "Failed")), str(error.get("message", ""))
    return TargetRefused(f"{what}: {code}: {message}", service_code=code)


def _poll_delay(headers: Mapping[str, str]) -> float:
    asked = retry_after(headers)
    return POLL_S if asked is None else asked
