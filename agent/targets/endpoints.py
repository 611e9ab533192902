"""Which services a job's target asks, before it is asked: for the doctor. One case a kind of target. Pure.

Not in it is what a service names later: the host of a managed disk's SAS.
"""

from typing import assert_never

from agent.targets.azure.clouds import CLOUDS
from protocol.ops import (
    AwsS3,
    AwsSnapshot,
    AzureDisk,
    AzurePageBlob,
    GcpImage,
    LocalTarget,
    TargetRef,
)

_GOOGLE = (
    "https://storage.googleapis.com",
    "https://compute.googleapis.com",
    "https://oauth2.googleapis.com",
)


def endpoints_of(ref: TargetRef) -> tuple[str, ...]:
    """Return the URLs of the services, each once."""
    match ref:
        case LocalTarget():
            return ()
        case AzurePageBlob():
            return (ref.endpoint,)
        case AzureDisk():
            cloud = CLOUDS[ref.cloud]
            return (ref.management or cloud.management, ref.authority or cloud.authority)
        case AwsSnapshot():
            return _aws(ref.region, ref.endpoint, "sts", "ec2", "ebs")
        case AwsS3():
            return _aws(ref.region, ref.endpoint, "sts", "ec2", "s3")
        case GcpImage():
            return (ref.endpoint,) if ref.endpoint else _GOOGLE
        case _:
            assert_never(ref)


def _aws(region: str, endpoint: str | None, *services: str) -> tuple[str, ...]:
    if endpoint:
        return (endpoint,)
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return tuple(f"https://{service}.{region}.{suffix}" for service in services)
