"""AwsControl: the control calls of one job, by boto3 in a bounded pool; signed by signed time, errors by class.

boto3's own retries are off: `Retrier` decides, by error class, as everywhere.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from agent.retry import Retrier
from agent.targets.aws.credentials import AwsAccess, check_secret, client_options, make_session
from agent.targets.aws.failures import sdk_failure
from agent.targets.aws.sigv4 import Keys
from agent.targets.errors import (
    CredentialRefused,
    EndpointForbidden,
    TargetUnavailable,
)
from agent.threads import Pool, run_blocking

T = TypeVar("T")

WORKERS = 4
_FRESH_S = 60.0
"""Worker threads ask botocore again after so long; it renews 10 minutes or more before the end."""
_SIGNER = "imageport-v4"
_S3_SIGNER = "imageport-s3v4"


class AwsControl:
    """One session with its clients; made on first use, in the pool."""

    def __init__(self, access: AwsAccess, retrier: Retrier, clock: Callable[[], float]) -> None:
        """Connect nothing yet.

        Raises:
            CredentialRefused: The secret is none of the sets.
        """
        check_secret(access.secret)
        self._access = access
        self._retrier = retrier
        self._clock = clock
        self._pool = Pool("aws", WORKERS)
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._keys: tuple[float, Keys] | None = None

    async def call(
        self,
        service: str,
        action: str,
        *,
        needs: tuple[str, ...] = (),
        permission: str = "",
        **params: Any,
    ) -> dict[str, Any]:
        """Call one idempotent action ("ec2", "describe_images") and return its answer; retried by class.

        `needs` are keys that the answer must hold: of a JSON answer that was cut off botocore makes an empty one.
        `permission` is what the call takes, where that is not its own name.

        Raises:
            AgentError: By class; names service and action.
        """
        what = f"{service}:{''.join(part.capitalize() for part in action.split('_'))}"
        what += f" (which takes {permission})" if permission else ""

        def once() -> dict[str, Any]:
            try:
                answer: dict[str, Any] = getattr(self._client(service), action)(**params)
            except _errors() as err:
                raise sdk_failure(err, what=what) from err
            if missing := [key for key in needs if key not in answer]:
                msg = f"{what}: the answer holds no {', '.join(missing)}"
                raise TargetUnavailable(msg)
            return answer

        return await self._retrier.call(lambda: run_blocking(self._pool, once))

    async def account(self) -> str:
        """Return the id of the account; the first call of a job, which proves its credential.

        Raises:
            EndpointForbidden: The site's policy does not let disks be made there.
        """
        account = str((await self.call("sts", "get_caller_identity"))["Account"])
        if not self._access.account_allowed(account):
            msg = f"the credential is of AWS account {account}, which [policy] subscriptions do not allow"
            raise EndpointForbidden(msg, account=account)
        return account

    def endpoint(self, service: str) -> str:
        """Return the URL of a service. Blocking."""
        return str(self._client(service).meta.endpoint_url).rstrip("/")

    async def blocking(self, work: Callable[[], T]) -> T:
        """Run other blocking work of the job in the pool."""
        return await run_blocking(self._pool, work)

    async def endpoint_of(self, service: str) -> str:
        """Return the URL of a service."""
        return await run_blocking(self._pool, lambda: self.endpoint(service))

    def keys(self) -> Keys:
        """Return the credentials of now, renewed in time. Blocking, from any thread but the loop's.

        Raises:
            AgentError: There are none, or they cannot be renewed.
        """
        known = self._keys
        if known is not None and self._clock() < known[0]:
            return known[1]
        with self._lock:
            try:
                found = self._made().get_credentials()
                frozen = None if found is None else found.get_frozen_credentials()
            except _errors() as err:
                raise sdk_failure(err, what="renew the AWS credential") from err
            if frozen is None:
                raise CredentialRefused("the job holds no AWS credential")
            keys = Keys(frozen.access_key, frozen.secret_key, frozen.token or "")
            self._keys = (self._clock() + _FRESH_S, keys)
            return keys

    def refused(self, keys: Keys) -> bool:
        """Forget keys that the service refused; whether others can be had."""
        with self._lock:
            if self._keys is not None and self._keys[1] is keys:
                self._keys = None
                found = self._made().get_credentials()
                if not hasattr(found, "_refresh_using"):
                    return False
                found._expiry_time = found._time_fetcher()
        return True

    async def close(self) -> None:
        """Close the clients and the pool."""
        for client in self._clients.values():
            client.close()
        self._pool.close()

    def _made(self) -> Any:
        if self._session is None:
            self._session = make_session(self._access)
            _register_signer()
        return self._session

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                client = self._made().client(service, **client_options(self._access))
                if not self._access.allowed(client.meta.endpoint_url):
                    msg = f"{service} is on {client.meta.endpoint_url}, which [policy] endpoints do not allow"
                    raise EndpointForbidden(msg)
                signer = _S3_SIGNER if service == "s3" else _SIGNER
                client.meta.events.register(f"choose-signer.{service}", lambda **_: signer)
                client.meta.events.register("before-call", self._stamp)
                self._clients[service] = client
            return self._clients[service]

    def _stamp(self, params: dict[str, Any], **_: Any) -> None:
        params["context"]["imageport_now_ms"] = self._access.now_ms()


def _errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded with boto3 only
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    return (BotoCoreError, ClientError, ResponseParserError)


def _register_signer() -> None:
    """Teach botocore a signature by another clock than this machine's."""
    import time  # noqa: PLC0415 - only to write a given time down

    from botocore import auth  # noqa: PLC0415 - loaded with boto3 only

    if _SIGNER in auth.AUTH_TYPE_MAPS:
        return

    class SignedTime:
        """add_auth of SigV4Auth with the time that the call was stamped with."""

        def add_auth(self, request: Any) -> None:
            moment = time.gmtime(request.context["imageport_now_ms"] // 1000)
            request.context["timestamp"] = time.strftime(auth.SIGV4_TIMESTAMP, moment)
            plain: Any = self
            plain._modify_request_before_signing(request)
            text = plain.string_to_sign(request, plain.canonical_request(request))
            plain._inject_signature_to_request(request, plain.signature(text, request))

    auth.AUTH_TYPE_MAPS[_SIGNER] = type("V4", (SignedTime, auth.SigV4Auth), {})
    auth.AUTH_TYPE_MAPS[_S3_SIGNER] = type("S3V4", (SignedTime, auth.S3SigV4Auth), {})
