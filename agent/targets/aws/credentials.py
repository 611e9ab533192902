"""Credentials of AWS targets: what the sealed secret holds, and the botocore session that it becomes.

| secret's keys | meaning |
|---|---|
| access_key_id, secret_access_key | long-term keys |
| + session_token | temporary keys, which cannot be renewed here |
| profile | a profile in the appliance's own AWS files |
| instance_role ("true") | the role of the EC2 instance that the appliance runs on |
| + role_arn, external_id? | the above assume this role; renewed in time |

The environment is never read: what a job may use is what its command holds.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.secrets import Secret
from agent.targets.errors import CredentialRefused
from agent.targets.http.settings import CONNECT_S, IDLE_S, HttpSettings, proxy_with_auth

ROLE_SESSION = "imageport"
ROLE_SECONDS = 3600
_KEYS = frozenset({"access_key_id", "secret_access_key"})
_BASES = (
    _KEYS,
    _KEYS | {"session_token"},
    frozenset({"profile"}),
    frozenset({"instance_role"}),
)
_ROLE = frozenset({"role_arn", "external_id"})


@dataclass(frozen=True, slots=True)
class AwsAccess:
    """How a job reaches AWS.

    Attributes:
        secret: The opened credential; one of the sets above.
        region: Of the job.
        http: Proxy and trust.
        endpoint: One URL for every service (a private endpoint, a simulator); None: AWS' own.
        config_file: The appliance's AWS files for `profile`; None if the site has none.
        now_ms: Signed time.
        allowed: Whether the site lets requests go to a URL.
        account_allowed: Whether it lets disks be made in an account.
    """

    secret: dict[str, Secret] = field(repr=False)
    region: str
    http: HttpSettings
    endpoint: str | None
    config_file: str | None
    now_ms: Callable[[], int]
    allowed: Callable[[str], bool]
    account_allowed: Callable[[str], bool]


def check_secret(secret: dict[str, Secret]) -> None:
    """Raise CredentialRefused unless the keys are one of the sets; values are never shown."""
    keys = frozenset(secret)
    base = keys - _ROLE
    if base not in _BASES or ("external_id" in keys and "role_arn" not in keys):
        found = ", ".join(sorted(keys)) or "nothing"
        msg = (
            f"the target's credential holds {found}; expected access_key_id + secret_access_key (+ session_token),"
            " profile, or instance_role, each with or without role_arn (+ external_id)"
        )
        raise CredentialRefused(msg)


def client_options(access: AwsAccess) -> dict[str, Any]:
    """Return how every client is made. Retries are ours: one place decides."""
    from botocore.config import Config  # noqa: PLC0415 - loaded with boto3 only

    proxy = proxy_with_auth(access.http)

    return {
        "region_name": access.region,
        "endpoint_url": access.endpoint,
        "verify": access.http.ca_file or True,
        "config": Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_S,
            read_timeout=IDLE_S,
            proxies={"http": proxy, "https": proxy} if proxy else {},
            s3={"addressing_style": "path"},
            ignore_configured_endpoint_urls=True,
        ),
    }


def make_session(access: AwsAccess) -> Any:
    """Return a boto3 session with the credentials, nothing of the environment in it. Blocking.

    Raises:
        CredentialRefused: The secret's keys do not belong together, or a profile is asked for and there is no file.
    """
    import boto3  # noqa: PLC0415 - 0.3 s and 26 MiB
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES  # noqa: PLC0415
    from botocore.session import Session  # noqa: PLC0415

    check_secret(access.secret)
    secret = access.secret
    if "profile" in secret and access.config_file is None:
        raise CredentialRefused(
            "the credential names a profile, and [uploads] aws_config_file is not set"
        )
    without_environment = {
        name: (file_key, None, default, convert)
        for name, (file_key, _env, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    core = Session(session_vars=without_environment)
    core.set_config_variable("config_file", access.config_file or "/dev/null")
    core.set_config_variable("credentials_file", access.config_file or "/dev/null")
    if "profile" in secret:
        core.set_config_variable("profile", secret["profile"].reveal())
    session = boto3.session.Session(botocore_session=core, region_name=access.region)
    base = _base(secret, access)
    if base is not None:
        core._credentials = base
    if "role_arn" in secret:
        core._credentials = _assumed(core, access, core.get_credentials())
    return session


def _base(secret: dict[str, Secret], access: AwsAccess) -> Any:
    from botocore import credentials as sdk  # noqa: PLC0415 - loaded with boto3 only
    from botocore.utils import InstanceMetadataFetcher  # noqa: PLC0415

    if "access_key_id" in secret:
        token = secret["session_token"].reveal() if "session_token" in secret else None
        return sdk.Credentials(
            secret["access_key_id"].reveal(), secret["secret_access_key"].reveal(), token
        )
    if "instance_role" in secret:
        config = {
            "ec2_metadata_service_endpoint": access.endpoint,
            "ec2_metadata_v1_disabled": True,
        }
        fetcher = InstanceMetadataFetcher(
            timeout=5, num_attempts=3, config=config, base_url=access.endpoint
        )
        found = sdk.InstanceMetadataProvider(fetcher).load()
        if found is None:
            raise CredentialRefused("the appliance runs on no EC2 instance with a role")
        return found
    return None


class _Forgetful(dict[str, Any]):
    """botocore's cache of role credentials, without memory: ours renews when a service refuses, not by the clock."""

    def __setitem__(self, key: str, value: Any) -> None:
        """Keep nothing."""


def _assumed(core: Any, access: AwsAccess, source: Any) -> Any:
    from botocore import credentials as sdk  # noqa: PLC0415 - loaded with boto3 only

    secret = access.secret
    extra: dict[str, Any] = {"RoleSessionName": ROLE_SESSION, "DurationSeconds": ROLE_SECONDS}
    if "external_id" in secret:
        extra["ExternalId"] = secret["external_id"].reveal()
    fetcher = sdk.AssumeRoleCredentialFetcher(
        functools.partial(core.create_client, **client_options(access)),
        source,
        secret["role_arn"].reveal(),
        extra_args=extra,
        cache=_Forgetful(),
    )
    return sdk.DeferredRefreshableCredentials(
        refresh_using=fetcher.fetch_credentials,
        method="assume-role",
        time_fetcher=lambda: datetime.fromtimestamp(access.now_ms() / 1000, UTC),
    )
