"""One upload as a process of its own, with the real journal: what the upload benchmark measures.

Run as `python -m tests.bench.upload_worker FOLDER FILE ENDPOINT KEY STATE [crc64]`; prints the stage's report as JSON.
BENCH_SMB=PORT:USER:PASSWORD takes the file from the share `plain` of a server here instead.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from agent.journal.job import JobJournal
from agent.journal.store import Journal
from agent.shares.smb.malloc import tune_malloc
from agent.stages.upload import UploadStage
from protocol.ops import AzurePageBlob, LocalShare, SmbShare, UploadArgs
from tests.support.stage_jobs import config_for, make_job


class _LoneJournal(JobJournal):
    """The journal of a job that no command ordered, so that no cancel can have come first."""

    async def point_of_no_return(self) -> None:
        await self.flush()


async def main() -> None:
    """Upload, print, end."""
    folder, file, endpoint, key, state = sys.argv[1:6]
    verify = os.environ.get("BENCH_VERIFY", "none")
    config = config_for(share=Path(folder), service_checksum="crc64" in sys.argv[6:])
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
    target = AzurePageBlob(endpoint=endpoint, container="vhds", blob=f"{origin.hex()}.vhd")
    source: LocalShare | SmbShare = LocalShare(name="disks")
    secrets = {"target.credential": {"account_key": key}}
    tune_malloc()
    if server := os.environ.get("BENCH_SMB"):
        port, user, password = server.split(":")
        source = SmbShare(server="127.0.0.1", share="plain", port=int(port))
        secrets["source.credential"] = {"username": user, "password": password}
    form = Path(file).suffix[1:]
    args = UploadArgs(source=source, path=file, format=form, target=target, verify=verify)
    outcome = await UploadStage().run(
        make_job(args, config, store=store, secrets=secrets, origin=origin.hex())
    )
    sys.stdout.write(json.dumps(outcome.report) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
