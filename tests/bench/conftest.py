"""What the benchmarks of the whole house share: relay, signer and agent as processes, the Azure simulator as target."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.sim.azure import AzureSim
from tests.support.simazure import running_azure
from tests.support.stack import Stack


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[AzureSim]:
    with running_azure(state_dir=tmp_path / "azure") as sim:
        sim.make_container("vhds")
        yield sim


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        stack.start_all()
        yield stack
