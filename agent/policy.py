"""Local policy: what the appliance's owner forbids, whoever signed it. Pure: configuration and command in, code out."""

from fnmatch import fnmatchcase
from typing import assert_never
from urllib.parse import urlsplit

from agent.config import AgentConfig
from protocol.errors import ProtocolError
from protocol.messages import Command
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
    SweepArgs,
    TargetRef,
    UploadArgs,
    parse_args,
)

OP_FORBIDDEN = "policy.op-forbidden"
SHARE_FORBIDDEN = "policy.share-forbidden"
SHARE_UNKNOWN = "policy.share-unknown"
TARGET_FORBIDDEN = "policy.target-forbidden"
TARGET_UNKNOWN = "policy.target-unknown"


def forbidden(command: Command, config: AgentConfig) -> str | None:
    """Return the code of the rule that forbids this command, None if there is none.

    Arguments that do not parse are not judged here: the acceptor's next check names them.
    """
    if command.op != "cancel" and not _matches(command.op, config.policy.ops):
        return OP_FORBIDDEN
    try:
        args = parse_args(command.op, command.args_v, command.args)
    except ProtocolError:
        return None
    if isinstance(args, UploadArgs):
        return share_rule(args.source, config) or target_rule(args.target, config)
    if isinstance(args, SweepArgs) and args.target is not None:
        return target_rule(args.target, config)
    return None


def share_rule(share: ShareRef, config: AgentConfig) -> str | None:
    """Return the code that forbids reading from this share."""
    match share:
        case LocalShare():
            return None if share.name in config.shares.local else SHARE_UNKNOWN
        case SmbShare():
            allowed = _matches(share.server.lower(), config.policy.share_servers)
            return None if allowed else SHARE_FORBIDDEN
        case _:
            assert_never(share)


def target_rule(target: TargetRef, config: AgentConfig) -> str | None:
    """Return the code that forbids writing to this target."""
    match target:
        case LocalTarget():
            return None if target.name in config.targets.local else TARGET_UNKNOWN
        case AzurePageBlob():
            return None if endpoint_allowed(target.endpoint, config) else TARGET_FORBIDDEN
        case AwsSnapshot() | AwsS3():
            service = "s3" if isinstance(target, AwsS3) else "ebs"
            suffix = "amazonaws.com.cn" if target.region.startswith("cn-") else "amazonaws.com"
            url = target.endpoint or f"https://{service}.{target.region}.{suffix}"
            return None if endpoint_allowed(url, config) else TARGET_FORBIDDEN
        case GcpImage():
            url = target.endpoint or "https://storage.googleapis.com"
            allowed = endpoint_allowed(url, config) and account_allowed(target.project, config)
            return None if allowed else TARGET_FORBIDDEN
        case AzureDisk():
            given = (target.management, target.authority)
            urls = [url for url in given if url is not None]
            allowed = all(endpoint_allowed(url, config) for url in urls) and account_allowed(
                target.subscription, config
            )
            return None if allowed else TARGET_FORBIDDEN
        case _:
            assert_never(target)


def endpoint_allowed(url: str, config: AgentConfig) -> bool:
    """Whether disk bytes and credentials may be sent to the origin of this URL."""
    parts = urlsplit(url)
    return _matches(f"{parts.scheme}://{parts.netloc}".lower(), config.policy.endpoints)


def account_allowed(account: str, config: AgentConfig) -> bool:
    """Whether disks may be made in a subscription, project or account; of AWS only its services tell which it is."""
    return _matches(account, config.policy.subscriptions)


def _matches(value: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
