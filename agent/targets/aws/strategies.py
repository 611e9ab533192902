"""From a snapshot to what the job asks for: which strategy, what is there under the name already, the result."""

from agent.targets.aws.building import Building, Strategy
from agent.targets.aws.importing import ImportImage
from agent.targets.aws.inventory import FINAL, IMAGE, SNAPSHOT, STATE, Inventory, Scope, tags_of
from agent.targets.aws.register import RegisterImage
from agent.targets.aws.swap import InstanceSwap
from agent.targets.base import Artifact
from agent.targets.naming import Found
from agent.targets.tags import Tagger
from protocol.ops import AwsImage

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (RegisterImage(), ImportImage(), InstanceSwap())
}
SNAPSHOT_ONLY = "snapshot-only"


def strategy_of(ref: AwsImage) -> Strategy | None:
    """Return the strategy that a job asks for, or the one that `auto` means; None: the snapshot is the result.

    Raises:
        StrategyRefused: It cannot make what the job asks for.
    """
    name: str = ref.strategy
    if name == "auto":
        windows = InstanceSwap.name if ref.swap is not None else ImportImage.name
        name = windows if ref.os_type == "Windows" else RegisterImage.name
    if name == SNAPSHOT_ONLY:
        return None
    STRATEGIES[name].check(ref)
    return STRATEGIES[name]


async def look_for(inventory: Inventory, name: str, scope: Scope, tagger: Tagger) -> Found | None:
    """Return the AMI of that name, else a snapshot that is called so."""
    for image in await inventory.named(IMAGE, name):
        ours = tagger.read(tags_of(image), scope, name) is not None
        return Found(ours, final=True, where=f"AMI {image['ImageId']} ({name})")
    found: Found | None = None
    for snapshot in await inventory.named(SNAPSHOT, name):
        tags = tags_of(snapshot)
        ours = tagger.read(tags, scope, name) is not None
        final = tags.get(STATE) == FINAL or not ours
        one = Found(ours, final, f"snapshot {snapshot['SnapshotId']} ({name})")
        found = one if found is None or final else found
    return found


async def finish(building: Building, **properties: str | int | bool) -> Artifact:
    """Make the AMI of a final snapshot, or describe the snapshot; `properties` are the latter's own."""
    strategy = strategy_of(building.ref)
    if strategy is not None:
        return await strategy.make(building)
    return Artifact(
        SNAPSHOT,
        building.snapshot,
        {
            "name": building.name,
            "size": building.spec.padded_size,
            "region": building.ref.region,
            "strategy": SNAPSHOT_ONLY,
            **properties,
        },
    )
