"""The demo's own proof: read the blob back with Microsoft's SDK and digest it with `imageport disk digest`.

Nothing of the agent's code takes part, so agent and proof cannot be wrong in the same way.
"""

import json
from pathlib import Path
from typing import Any

from appliance.demo.processes import imageport, run


def read_back(account: dict[str, Any], container: str, blob: str, path: Path) -> None:
    """Download a page blob's written ranges into a sparse file."""
    from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - 0.5 s to import

    credential = {"account_name": account["account"], "account_key": account["key"]}
    with BlobServiceClient(account["blob_url"], credential=credential) as service:
        client = service.get_blob_client(container, blob)
        size = client.get_blob_properties().size
        ranges, _ = client.get_page_ranges()
        with path.open("wb") as file:
            file.truncate(size)
            for written in ranges:
                length = written["end"] - written["start"] + 1
                file.seek(written["start"])
                client.download_blob(written["start"], length).readinto(file)


def make_container(account: dict[str, Any], container: str) -> None:
    """Make the container that the job names."""
    from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - 0.5 s to import

    credential = {"account_name": account["account"], "account_key": account["key"]}
    with BlobServiceClient(account["blob_url"], credential=credential) as service:
        service.create_container(container)


def root_of(path: Path, *, image_format: str) -> str:
    """Return the content digest's root of an image file."""
    answer = run(imageport("disk", "digest", path, "--format", image_format, "--json"))
    root: str = json.loads(answer)["root"]
    return root
