"""Images of Compute Engine over REST ("Compute Engine API v1", images and globalOperations).

Not google-cloud-compute: six calls, against seconds of importing (as docs/adr/0004 for Azure's); tests drive the same
simulator with that API's own shapes.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from agent.errors import AgentError
from agent.retry import Retrier
from agent.targets.errors import CredentialRefused, DiskLost, TargetRefused, TargetUnavailable
from agent.targets.gcp.failures import failure
from agent.targets.gcp.gcs import GcsControl
from agent.targets.http.body import whole
from agent.targets.http.failures import CONNECTION_ERRORS, connection_failure

PUBLIC_COMPUTE = "https://compute.googleapis.com"
POLL_S = 3.0
_MAX_ANSWER = 8 * 1024 * 1024

Resource = dict[str, Any]


class ImageFailed(TargetRefused):
    """Compute Engine did not make an image of the archive."""

    code = "gcp.image-failed"
    fix = "Read Google's own message above; the archive is kept in the bucket, named in the result."


@dataclass(slots=True)
class ComputeImages:
    """The images of one project.

    Attributes:
        session: Owned by the target.
        control: Gives tokens.
        endpoint: Of the service, without a slash at its end.
        project: Its id.
        retrier: For failing calls; each of them may be repeated.
    """

    session: aiohttp.ClientSession
    control: GcsControl
    endpoint: str
    project: str
    retrier: Retrier

    async def get(self, name: str) -> Resource | None:
        """Return an image, None if there is none."""
        try:
            return await self._call("GET", f"global/images/{name}", f"look at image {name}")
        except DiskLost:
            return None

    async def insert(self, resource: Resource) -> None:
        """Make an image and wait until it is there; raises ImageFailed with Google's own words."""
        name = str(resource["name"])
        what = f"make image {name}"
        await self._finish(await self._call("POST", "global/images", what, resource), what)

    async def set_labels(self, name: str, labels: dict[str, str], fingerprint: str) -> None:
        """Replace the labels of the image as it was last seen."""
        what = f"label image {name}"
        body = {"labels": labels, "labelFingerprint": fingerprint}
        path = f"global/images/{name}/setLabels"
        await self._finish(await self._call("POST", path, what, body), what)

    async def delete(self, name: str) -> None:
        """Delete an image; one that is gone is no error."""
        what = f"delete image {name}"
        try:
            await self._finish(await self._call("DELETE", f"global/images/{name}", what), what)
        except DiskLost:
            return

    async def permissions(self, wanted: list[str]) -> list[str]:
        """Return those of the permissions on the project that the job has."""
        url = f"{_manager(self.endpoint)}/v1/projects/{self.project}:testIamPermissions"
        what = f"test permissions on project {self.project}"
        answer = await self.retrier.call(
            lambda: self._once("POST", url, what, {"permissions": wanted})
        )
        return [str(one) for one in answer.get("permissions", [])]

    async def _finish(self, operation: Resource, what: str) -> None:
        name = str(operation.get("name", ""))
        while operation.get("status") != "DONE":
            await asyncio.sleep(POLL_S)
            operation = await self._call("GET", f"global/operations/{name}", what)
        errors = (operation.get("error") or {}).get("errors") or []
        if errors:
            told = "; ".join(f"{one.get('code')}: {one.get('message')}" for one in errors)
            raise ImageFailed(f"{what}: {told}", service_code=str(errors[0].get("code", "")))

    async def _call(
        self, method: str, path: str, what: str, body: Resource | None = None
    ) -> Resource:
        url = f"{self.endpoint}/compute/v1/projects/{self.project}/{path}"
        return await self.retrier.call(lambda: self._once(method, url, what, body))

    async def _once(self, method: str, url: str, what: str, body: Resource | None) -> Resource:
        token = await self.control.token()
        try:
            return await self._ask(method, url, what, body, token)
        except CredentialRefused:
            await self.control.forget(token)
        return await self._ask(method, url, what, body, await self.control.token())

    async def _ask(
        self, method: str, url: str, what: str, body: Resource | None, token: str
    ) -> Resource:
        try:
            async with self.session.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                allow_redirects=False,
            ) as response:
                text = await whole(response, _MAX_ANSWER, what=what)
        except CONNECTION_ERRORS as err:
            raise connection_failure(err, what=what) from err
        document = _object(text)
        if response.status >= 300:
            raise _refusal(response.status, document, response.headers, what)
        if document is None:
            msg = f"{what}: the answer is no JSON"
            raise TargetUnavailable(msg)
        return document


def _refusal(
    status: int, document: Resource | None, headers: Mapping[str, str], what: str
) -> AgentError:
    error = (document or {}).get("error")
    told = error if isinstance(error, dict) else {}
    errors = told.get("errors") or [{}]
    code = str(errors[0].get("reason", "")) if isinstance(errors[0], dict) else ""
    return failure(status, code, str(told.get("message", "")), dict(headers), what=what)


def _object(text: bytes) -> Resource | None:
    try:
        plain = json.loads(text)
    except ValueError:
        return None
    return plain if isinstance(plain, dict) else None


def _manager(endpoint: str) -> str:
    """Return where permissions on projects are tested: beside the public API, or the one endpoint of a simulator."""
    public = endpoint == PUBLIC_COMPUTE
    return "https://cloudresourcemanager.googleapis.com" if public else endpoint
