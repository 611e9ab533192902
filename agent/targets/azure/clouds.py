"""The Azure clouds: where their control planes and authorities are, and what their tokens are for. Pure.

"Compare Azure Government and global Azure"; "Developer guide for Azure China".
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AzureCloud:
    """One sovereign cloud.

    Attributes:
        management: ARM's endpoint; also the audience of its tokens.
        authority: Where tokens come from.
        disk_audience: Audience of the tokens that direct upload takes beside a SAS.
    """

    management: str
    authority: str
    disk_audience: str


CLOUDS = {
    "public": AzureCloud(
        "https://management.azure.com",
        "https://login.microsoftonline.com",
        "https://disk.azure.com/",
    ),
    "us-government": AzureCloud(
        "https://management.usgovcloudapi.net",
        "https://login.microsoftonline.us",
        "https://disk.usgovcloudapi.net/",
    ),
    "china": AzureCloud(
        "https://management.chinacloudapi.cn",
        "https://login.chinacloudapi.cn",
        "https://disk.chinacloudapi.cn/",
    ),
}
