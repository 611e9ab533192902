"""Upload jobs against the AWS simulator: credentials, one source image, what the simulator holds."""

from dataclasses import dataclass
from pathlib import Path

from agent.stages.base import StageContext
from appliance.sim.aws import AwsSim
from protocol.ops import AwsSnapshot, AwsSwap, LocalShare, UploadArgs
from tests.support.stage_jobs import config_for, make_job


@dataclass
class AwsJobs:
    """A source image and how to send it to one simulator.

    Attributes:
        sim: Where to.
        share: Folder with `golden.raw`.
        ca_file: Trusted certificate when the simulator speaks TLS.
    """

    sim: AwsSim
    share: Path
    ca_file: Path | None = None

    def snapshot_job(
        self, *, credential=None, uploads=None, options=None, target=None, **job
    ) -> StageContext:
        """Return a job for a snapshot; `target` changes what the reference says."""
        reference = {"os_type": "Linux", "strategy": "snapshot-only", **(target or {})}
        return self.job(
            AwsSnapshot, reference, credential=credential, uploads=uploads, options=options, **job
        )

    def job(
        self, kind, reference, *, credential=None, uploads=None, options=None, **job
    ) -> StageContext:
        """Return a job for a target of a kind."""
        args = UploadArgs(
            source=LocalShare(name="disks"),
            path="golden.raw",
            format="raw",
            target=kind(region=self.sim.region, name="golden", endpoint=self.sim.url, **reference),
            **(options or {}),
        )
        settings = dict(uploads or {})
        if self.ca_file is not None:
            settings["ca_file"] = str(self.ca_file)
        config = config_for(share=self.share, **settings)
        credential = credential or self.sim.keys()
        return make_job(args, config, secrets={"target.credential": credential}, **job)

    def swap(self) -> AwsSwap:
        """Return what an instance swap launches here."""
        told = self.sim.describe()
        return AwsSwap(image=told["windows_image"], subnet=told["subnet"])
