"""Strategy `register-image`: an AMI straight from the snapshot. For Linux: Windows' licence data would be missing."""

from typing import Any, ClassVar

from agent.targets.aws.building import LINUX, Building, StrategyRefused
from agent.targets.aws.inventory import IMAGE, specification
from agent.targets.base import Artifact
from protocol.ops import AwsImage


class RegisterImage:
    """See the module."""

    name: ClassVar[str] = "register-image"

    def objects(self, name: str) -> list[str]:
        """See `Strategy`."""
        return [f"AMI {name}"]

    def check(self, ref: AwsImage) -> None:
        """Linux only."""
        if ref.os_type == "Windows":
            msg = "register-image makes no Windows AMI: billing and activation come from the snapshot, which has none"
            raise StrategyRefused(msg)

    async def make(self, building: Building) -> Artifact:
        """Register, or find what an earlier attempt registered: AMI names are unique, so there is no second one."""
        image = await building.image_of_line()
        if image is None:
            await building.intents.record(building.intent(IMAGE))
            answer = await building.control.call("ec2", "register_image", **_request(building))
            image_id = str(answer["ImageId"])
        else:
            image_id = str(image["ImageId"])
        await building.intents.created(building.intent(IMAGE), image_id)
        made = await building.wait_for_image(image_id)
        return await building.artifact(made, LINUX, strategy=self.name)


def _request(building: Building) -> dict[str, Any]:
    ref = building.ref
    disk = {
        "SnapshotId": building.snapshot,
        "VolumeType": ref.volume_type,
        "DeleteOnTermination": True,
    }
    request: dict[str, Any] = {
        "Name": building.name,
        "Description": "imported by imageport",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "RootDeviceName": ref.root_device,
        "BlockDeviceMappings": [{"DeviceName": ref.root_device, "Ebs": disk}],
        "BootMode": ref.boot_mode,
        "EnaSupport": ref.ena,
        "TagSpecifications": [specification("image", building.tags())],
    }
    if ref.tpm:
        request["TpmSupport"] = "v2.0"
    if ref.imds_v2:
        request["ImdsSupport"] = "v2.0"
    return request
