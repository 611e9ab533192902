"""One EBS upload as a process of its own: ours with its journal, boto3 or aiobotocore as their users write it.

Run as `python -m tests.bench.ebs_worker ours|boto3|aiobotocore FOLDER FILE ENDPOINT STATE INFLIGHT`. aiobotocore wants
a botocore of its own, so it runs with another interpreter, which needs nothing of this project's.
"""

import asyncio
import base64
import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

BLOCK = 512 * 1024


async def ours(folder: str, file: str, endpoint: str, state: str, inflight: int) -> None:
    """Upload by the stage."""
    from agent.journal.store import Journal  # noqa: PLC0415 - boto3's users load nothing of ours
    from agent.stages.upload import UploadStage  # noqa: PLC0415
    from agent.targets.aws import building  # noqa: PLC0415
    from agent.targets.aws.snapshot import AwsSnapshotTarget  # noqa: PLC0415
    from protocol.ops import AwsSnapshot, LocalShare, UploadArgs  # noqa: PLC0415
    from tests.bench.upload_worker import _LoneJournal  # noqa: PLC0415
    from tests.support.stage_jobs import config_for, make_job  # noqa: PLC0415

    building.POLL_S = 0.01
    AwsSnapshotTarget.limits = replace(
        AwsSnapshotTarget.limits, inflight_max=inflight, inflight_start=inflight
    )
    journal = Journal(Path(state), reserve=0)
    origin = os.urandom(16)
    store = _LoneJournal(
        journal.writer,
        journal.path,
        digest=origin * 2,
        origin=origin,
        now_ms=lambda: time.time_ns() // 10**6,
    )
    await store.open()
    target = AwsSnapshot(
        region="eu-central-1", name="golden", os_type="Linux", strategy="snapshot-only",
        endpoint=endpoint,
    )  # fmt: skip
    args = UploadArgs(
        source=LocalShare(name="disks"), path=file, format="raw", target=target, verify="none"
    )
    secrets = {"target.credential": {"access_key_id": "AKIA", "secret_access_key": "s"}}
    config = config_for(share=Path(folder))
    job = make_job(args, config, store=store, secrets=secrets, origin=origin.hex())
    await UploadStage().run(job)


def boto(folder: str, file: str, endpoint: str, _state: str, inflight: int) -> None:
    """Upload by boto3 in threads: read, skip zeros, hash, put."""
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    config = Config(max_pool_connections=inflight)
    client = boto3.client(
        "ebs", endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id="AKIA",
        aws_secret_access_key="s", config=config,
    )  # fmt: skip
    path = Path(folder) / file
    descriptor = os.open(path, os.O_RDONLY)
    zeros = bytes(BLOCK)

    def put(index: int) -> None:
        data = os.pread(descriptor, BLOCK, index * BLOCK)
        if data == zeros:
            return
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        client.put_snapshot_block(
            SnapshotId="snap-0bench", BlockIndex=index, BlockData=data, DataLength=BLOCK,
            Checksum=checksum, ChecksumAlgorithm="SHA256",
        )  # fmt: skip

    with ThreadPoolExecutor(inflight) as pool:
        list(pool.map(put, range(path.stat().st_size // BLOCK)))


async def aioboto(folder: str, file: str, endpoint: str, _state: str, inflight: int) -> None:
    """Upload by aiobotocore: the same, so many puts at a time on one loop."""
    from aiobotocore.config import AioConfig  # noqa: PLC0415
    from aiobotocore.session import get_session  # noqa: PLC0415

    path = Path(folder) / file
    descriptor = os.open(path, os.O_RDONLY)
    zeros, indexes = bytes(BLOCK), iter(range(path.stat().st_size // BLOCK))
    client = get_session().create_client(
        "ebs", endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id="AKIA",
        aws_secret_access_key="s", config=AioConfig(max_pool_connections=inflight),
    )  # fmt: skip
    async with client as ebs:

        async def work() -> None:
            for index in indexes:
                data = os.pread(descriptor, BLOCK, index * BLOCK)
                if data != zeros:
                    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
                    await ebs.put_snapshot_block(
                        SnapshotId="snap-0bench", BlockIndex=index, BlockData=data,
                        DataLength=BLOCK, Checksum=checksum, ChecksumAlgorithm="SHA256",
                    )  # fmt: skip

        await asyncio.gather(*(work() for _ in range(inflight)))


if __name__ == "__main__":
    mode, folder, file, endpoint, state, inflight = sys.argv[1:7]
    if mode == "ours":
        asyncio.run(ours(folder, file, endpoint, state, int(inflight)))
    elif mode == "aiobotocore":
        asyncio.run(aioboto(folder, file, endpoint, state, int(inflight)))
    else:
        boto(folder, file, endpoint, state, int(inflight))
