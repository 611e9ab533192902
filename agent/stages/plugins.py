"""From a command's references to plug-ins: the one place that knows which arguments each kind takes."""

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from agent.config import AgentConfig, SmbServerConfig
from agent.policy import account_allowed, endpoint_allowed
from agent.proxy import read_proxy_credentials
from agent.retry import Retrier, RetryPolicy
from agent.shares import open_share
from agent.shares.base import Share
from agent.stages.base import StageContext
from agent.stages.errors import CredentialIncomplete, FolderUnknown
from agent.targets.base import DiskTarget
from protocol.ops import (
    AwsS3,
    AwsSnapshot,
    AzureDisk,
    AzurePageBlob,
    GcpImage,
    LocalShare,
    LocalTarget,
    ShareRef,
    SmbShare,
    TargetRef,
)

if TYPE_CHECKING:
    from agent.shares.smb.policy import SmbPolicy
    from agent.targets.http.settings import HttpSettings

GATED_CAP_S = 0.5
"""Longest wait after a throttle of a transfer's request."""
SOURCE_SECRET = "source.credential"  # noqa: S105 - a field path
TARGET_SECRET = "target.credential"  # noqa: S105 - a field path


def make_share(ref: ShareRef, job: StageContext) -> Share:
    """Return the share that a command names; nothing is connected yet.

    Raises:
        FolderUnknown: A local name that the configuration does not hold.
        CredentialIncomplete: An SMB credential without username or password.
    """
    match ref:
        case LocalShare():
            return open_share("local", _folder(job.config.shares.local, ref.name, "shares"))
        case SmbShare():
            return _smb_share(ref, job)
        case _:
            assert_never(ref)


def make_target(ref: TargetRef, job: StageContext) -> DiskTarget:
    """Return the target that a command names; nothing is connected yet."""
    match ref:
        case LocalTarget():
            from agent.targets.local import LocalTarget as Folder  # noqa: PLC0415 - first use

            return Folder(_folder(job.config.targets.local, ref.name, "targets"), ref.disk)
        case AzurePageBlob():
            return _page_blob(ref, job)
        case AzureDisk():
            return _managed_disk(ref, job)
        case AwsSnapshot() | AwsS3():
            return _aws(ref, job)
        case GcpImage():
            return _gcp_image(ref, job)
        case _:
            assert_never(ref)


def make_retrier(job: StageContext, *, gated: bool = False) -> Retrier:
    """Return the retry loop of a job; `gated` for requests whose number in flight a gate cuts after a throttle."""
    policy = replace(RetryPolicy(), gated_cap_s=GATED_CAP_S) if gated else RetryPolicy()
    return Retrier(policy=policy, now=job.clock, random=random.random)


def _smb_share(ref: SmbShare, job: StageContext) -> Share:
    from agent.shares.smb.ref import SmbCredential, SmbShareRef  # noqa: PLC0415 - first use

    secret = job.secret(SOURCE_SECRET)
    if "username" not in secret or "password" not in secret:
        msg = f"the credential of \\\\{ref.server}\\{ref.share} holds no username and password"
        raise CredentialIncomplete(msg)
    domain = secret["domain"].reveal() if "domain" in secret else ""
    credential = SmbCredential(secret["username"].reveal(), secret["password"], domain)
    where = SmbShareRef(ref.server, ref.share, ref.port, ref.folder)
    return open_share("smb", where, credential, policy=smb_policy(ref.server, job.config))


def smb_policy(server: str, config: AgentConfig) -> "SmbPolicy":
    """Return what the site accepts of a file server; the strictest of each where it says nothing."""
    from agent.shares.smb.policy import AuthKind, Dialect, Encryption, SmbPolicy  # noqa: PLC0415 - first use

    wanted = config.shares.smb.get(server.lower(), SmbServerConfig())
    oldest = Dialect.SMB_3_1_1 if wanted.oldest_dialect == "3.1.1" else Dialect.SMB_3_0_2
    return SmbPolicy(
        encryption=Encryption(wanted.encryption), oldest_dialect=oldest, auth=AuthKind(wanted.auth)
    )


def _page_blob(ref: AzurePageBlob, job: StageContext) -> DiskTarget:
    from agent.targets.azure.page_blob import PageBlobTarget  # noqa: PLC0415 - first use

    return PageBlobTarget(
        ref,
        job.secret(TARGET_SECRET),
        http=_http(job),
        now_ms=job.now_ms,
        clock=job.clock,
        checksums=job.config.uploads.service_checksum,
        token_file=job.config.uploads.azure_token_file,
    )


def _managed_disk(ref: AzureDisk, job: StageContext) -> DiskTarget:
    from agent.targets.azure.disk import AzureDiskTarget  # noqa: PLC0415 - first use

    return AzureDiskTarget(
        ref,
        job.secret(TARGET_SECRET),
        http=_http(job),
        retrier=make_retrier(job),
        allowed=lambda url: endpoint_allowed(url, job.config),
        now_ms=job.now_ms,
        checksums=job.config.uploads.service_checksum,
        token_file=job.config.uploads.azure_token_file,
    )


def _aws(ref: AwsSnapshot | AwsS3, job: StageContext) -> DiskTarget:
    from agent.targets.aws.control import AwsControl  # noqa: PLC0415 - first use
    from agent.targets.aws.credentials import AwsAccess  # noqa: PLC0415

    http, retrier = _http(job), make_retrier(job)
    access = AwsAccess(
        secret=job.secret(TARGET_SECRET),
        region=ref.region,
        http=http,
        endpoint=ref.endpoint,
        config_file=job.config.uploads.aws_config_file,
        now_ms=job.now_ms,
        allowed=lambda url: endpoint_allowed(url, job.config),
        account_allowed=lambda account: account_allowed(account, job.config),
    )
    control = AwsControl(access, retrier, job.clock)
    if isinstance(ref, AwsS3):
        from agent.targets.aws.s3 import AwsS3Target  # noqa: PLC0415 - first use

        return AwsS3Target(ref, control, http=http, retrier=retrier, now_ms=job.now_ms)
    from agent.targets.aws.snapshot import AwsSnapshotTarget  # noqa: PLC0415 - first use

    return AwsSnapshotTarget(
        ref, control, http=http, retrier=retrier, now_ms=job.now_ms, clock=job.clock
    )


def _gcp_image(ref: GcpImage, job: StageContext) -> DiskTarget:
    from agent.targets.gcp.image import GcpImageTarget  # noqa: PLC0415 - first use

    return GcpImageTarget(
        ref,
        job.secret(TARGET_SECRET),
        http=_http(job),
        retrier=make_retrier(job),
        allowed=lambda url: endpoint_allowed(url, job.config),
        now_ms=job.now_ms,
        clock=job.clock,
        files=job.config.uploads.gcp_credentials,
    )


def _http(job: StageContext) -> "HttpSettings":
    from agent.targets.http.settings import HttpSettings  # noqa: PLC0415 - first use

    uploads = job.config.uploads
    auth = None
    if uploads.proxy_credentials_file:
        user, password = read_proxy_credentials(uploads.proxy_credentials_file)
        auth = f"{user}:{password}"
    return HttpSettings(uploads.proxy, auth, uploads.ca_file)


def _folder(folders: dict[str, str], name: str, section: str) -> Path:
    try:
        return Path(folders[name])
    except KeyError as err:
        msg = f"the appliance's configuration has no [{section}] local.{name}"
        raise FolderUnknown(msg, name=name) from err
