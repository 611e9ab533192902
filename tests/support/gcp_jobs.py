"""Upload jobs against the Google Cloud simulator: credentials, one source image."""

from dataclasses import dataclass
from pathlib import Path

from agent.stages.base import StageContext
from appliance.sim.gcp import GcpSim
from protocol.ops import GcpImage, LocalShare, UploadArgs
from tests.support.stage_jobs import config_for, make_job


@dataclass
class GcpJobs:
    """A source image and how to send it to one simulator.

    Attributes:
        sim: Where to.
        share: Folder with `golden.raw`.
        ca_file: Trusted certificate when the simulator speaks TLS.
    """

    sim: GcpSim
    share: Path
    ca_file: Path | None = None

    def image_job(
        self, *, credential=None, uploads=None, options=None, target=None, **job
    ) -> StageContext:
        """Return a job for an image; `target` changes what the reference says."""
        args = UploadArgs(
            source=LocalShare(name="disks"),
            path="golden.raw",
            format="raw",
            target=GcpImage(
                project=self.sim.project,
                bucket=self.sim.bucket,
                endpoint=self.sim.url,
                **{"image": "golden", **(target or {})},
            ),
            **(options or {}),
        )
        settings = dict(uploads or {})
        if self.ca_file is not None:
            settings["ca_file"] = str(self.ca_file)
        config = config_for(share=self.share, **settings)
        credential = credential or {"service_account_key": self.sim.service_account_key()}
        return make_job(args, config, secrets={"target.credential": credential}, **job)
