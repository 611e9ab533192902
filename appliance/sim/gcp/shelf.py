"""GcpShelf: the objects of the Google Cloud simulator and the disks of its images; keeps State saved. Knows no HTTP."""

from pathlib import Path

from appliance.sim import records
from appliance.sim.gcp.state import FILE_NAME, Image, State
from appliance.sim.objects.shelf import Shelf


class GcpShelf(Shelf):
    """All bytes of one simulator, in one directory."""

    state: State

    def __init__(self, directory: Path, state: State) -> None:
        super().__init__(directory, state, lambda: records.save(directory / FILE_NAME, state))

    def disk(self, image: Image) -> Path:
        """Return the file with an image's disk."""
        return self.directory / image.folder / "disk.raw"
