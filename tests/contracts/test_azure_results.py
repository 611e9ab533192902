"""What becomes of a managed disk: a snapshot or a gallery's image version; exact, made once, taken back, resumable."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.targets.azure.gallery import DefinitionDiffers
from agent.targets.azure.results import ResultMissing
from agent.targets.errors import (
    IfExistsUnsupported,
    NotOurs,
    TargetExists,
    TargetNotFound,
    TargetRefused,
)
from agent.threads import Pool, run_blocking
from appliance.sim.azure.footer import FOOTER_SIZE
from appliance.sim.azure.galleries import Galleries
from appliance.sim.faults import Fault
from protocol.ops import AzureGallery
from tests.support.azurearm import compute_client
from tests.support.job_store import MemoryJobStore
from tests.support.rigs import AZURE_PADDED, Rig, running

OTHER, THIRD = "ab" * 16, "cd" * 16
GALLERY = "golden_images"


def version(**changes: object) -> dict[str, object]:
    named = {"name": GALLERY, "image": "win11", "version": "1.0.0", **changes}
    return {"result": "image-version", "gallery": AzureGallery(**named)}


RESULTS = {"snapshot": {"result": "snapshot"}, "image-version": version()}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "RetryPolicy", lambda: RetryPolicy(base_s=0.01, cap_s=0.05, patience_s=10.0)
    )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running("azure-disk", tmp_path, lro_seconds=0.05) as rig:
        rig.sim.make_gallery(GALLERY)
        yield rig


@pytest.fixture(params=RESULTS)
def wanted(request: pytest.FixtureRequest) -> dict[str, object]:
    return RESULTS[request.param]


async def run(rig: Rig, wanted: dict[str, object], **options: object):
    return await UploadStage().run(rig.job(target=wanted, **options))


def stored(rig: Rig, wanted: dict[str, object]) -> bytes:
    vault = rig.sim.vault
    shelf = vault.disks if wanted["result"] == "snapshot" else vault.versions
    (blob,) = [blob for key, blob in shelf.items() if "/" in key.partition("/")[2]]
    assert blob.file.read(AZURE_PADDED, FOOTER_SIZE)[:8] == b"conectix"
    return bytes(blob.file.read(0, AZURE_PADDED))


def left(rig: Rig) -> list[str]:
    state = rig.sim.vault.state
    return sorted([*state.disks, *(key for key in state.galleries if key.count("/") > 1)])


def made(wanted: dict[str, object]) -> list[str]:
    if wanted["result"] == "snapshot":
        return ["imageport/snapshots/golden"]
    return [f"imageport/{GALLERY}/win11", f"imageport/{GALLERY}/win11/1.0.0"]


async def test_the_result_is_exact_and_the_disk_is_gone(rig: Rig, wanted) -> None:
    outcome = await run(rig, wanted)
    assert stored(rig, wanted) == rig.expected()
    assert left(rig) == made(wanted)
    value = outcome.outputs[0].value
    kind = "snapshots/golden" if wanted["result"] == "snapshot" else "win11/versions/1.0.0"
    assert value["id"].endswith(kind)
    assert value["service_checksum"] == "crc64"
    assert outcome.report["verified"]["root"] == outcome.root


async def test_the_disk_stays_when_it_is_to_be_kept(rig: Rig, wanted) -> None:
    await run(rig, {**wanted, "keep_disk": True})
    assert left(rig) == sorted(["imageport/golden", *made(wanted)])
    assert rig.stored() == rig.expected()


async def test_a_finished_job_that_runs_again_makes_nothing_more(rig: Rig, wanted) -> None:
    store = MemoryJobStore()
    first = await run(rig, wanted, store=store)
    rig.sim.stats.reset()
    again = await run(rig, wanted, store=store, attempt=2)
    assert again.outputs[0].value["id"] == first.outputs[0].value["id"]
    assert left(rig) == made(wanted)
    assert rig.sim.stats.bytes_received == rig.sim.stats.bytes_read == 0


async def test_taking_it_back_leaves_nothing(rig: Rig, wanted) -> None:
    store = MemoryJobStore()
    await run(rig, {**wanted, "keep_disk": True}, store=store)
    job = rig.job(target=wanted, store=store)
    assert await UploadStage().clean_up(job) == []
    assert left(rig) == []
    assert store.objects == {}


STEPS = {
    "snapshot": ["arm.snapshot-put", "arm.snapshot-get", "arm.disk-delete"],
    "image-version": ["arm.image-put", "arm.version-put", "arm.version-get", "arm.disk-delete"],
}


@pytest.mark.parametrize("action", ["drop-before-body", "drop-after-write", "truncate"])
async def test_an_answer_lost_at_any_step_ends_in_one_of_each(
    rig: Rig, wanted, action: str
) -> None:
    for step in STEPS[wanted["result"]]:
        rig.faults(Fault(action=action, op=step, nth=[1]))
        store, origin = MemoryJobStore(), f"{len(step):032x}"
        await run(rig, wanted, store=store, origin=origin)
        rig.faults()
        assert left(rig) == made(wanted), step
        assert (
            await UploadStage().clean_up(rig.job(target=wanted, store=store, origin=origin)) == []
        )
        assert left(rig) == [], step


async def test_a_job_refused_at_any_step_goes_on_from_there(rig: Rig, wanted) -> None:
    """As after a kill: what is proven is not sent again, and each thing is made once."""
    store = MemoryJobStore()
    for attempt, step in enumerate(STEPS[wanted["result"]], start=1):
        rig.faults(Fault(action="status", status=400, code="Nonsense", op=step))
        with pytest.raises(AgentError, match="Nonsense"):
            await run(rig, wanted, store=store, attempt=attempt)
        rig.faults()
    rig.sim.stats.reset()
    await run(rig, wanted, store=store, attempt=9)
    assert left(rig) == made(wanted)
    assert stored(rig, wanted) == rig.expected()
    assert rig.sim.stats.bytes_received == 0


async def test_what_is_there_is_refused_and_stays(rig: Rig, wanted) -> None:
    await run(rig, wanted)
    for if_exists, refusals in (
        ("fail", TargetExists),
        ("resume", TargetExists),
        ("replace", (IfExistsUnsupported, TargetExists)),
    ):
        with pytest.raises(refusals):
            await run(rig, wanted, origin=OTHER, options={"if_exists": if_exists})
    assert left(rig) == made(wanted)


async def test_new_version_takes_the_next_name_or_number(rig: Rig, wanted) -> None:
    await run(rig, wanted)
    outcome = await run(rig, wanted, origin=OTHER, options={"if_exists": "new-version"})
    third = await run(rig, wanted, origin=THIRD, options={"if_exists": "new-version"})
    ends = [one.outputs[0].value["id"].rpartition("/")[2] for one in (outcome, third)]
    expected = ["golden-v2", "golden-v3"] if wanted["result"] == "snapshot" else ["1.0.1", "1.0.2"]
    assert ends == expected


async def test_another_appliances_result_is_never_taken(rig: Rig, wanted) -> None:
    await run(rig, wanted)
    job = rig.job(target=wanted, origin=OTHER, options={"if_exists": "resume"})
    object.__setattr__(job, "tag_key", b"x" * 32)
    with pytest.raises(NotOurs):
        await UploadStage().run(job)
    assert left(rig) == made(wanted)


async def test_a_gallery_that_is_not_there_is_named_before_anything_is_made(rig: Rig) -> None:
    with pytest.raises(TargetNotFound, match="gallery imageport/nowhere"):
        await run(rig, version(name="nowhere"))
    assert left(rig) == []


@pytest.mark.parametrize(
    "changes", [{"os_type": "Linux"}, {"generation": "V1"}, {"security_type": "TrustedLaunch"}]
)
async def test_a_definition_for_other_disks_is_refused_before_the_upload(rig: Rig, changes) -> None:
    await run(rig, version())
    with pytest.raises(DefinitionDiffers):
        await run(rig, {**version(version="2.0.0"), **changes}, origin=OTHER)
    assert left(rig) == made(version())


@pytest.mark.parametrize("feature", ["TrustedLaunch", "TrustedLaunchSupported"])
async def test_a_definition_of_another_security_type_takes_no_disk(rig: Rig, feature: str) -> None:
    await run(rig, version())
    (path,) = [path for path in rig.sim.vault.state.galleries if path.endswith("win11")]
    properties = rig.sim.vault.state.galleries[path].body["properties"]
    properties["features"] = [{"name": "SecurityType", "value": feature}]
    changes = {"security_type": "TrustedLaunch"} if feature == "TrustedLaunchSupported" else {}
    with pytest.raises(DefinitionDiffers, match="SecurityType"):
        await run(rig, {**version(version="2.0.0"), **changes}, origin=OTHER)
    assert left(rig) == made(version())


async def test_a_trusted_launch_disk_becomes_a_version_of_such_a_definition(rig: Rig) -> None:
    await run(rig, {**version(), "security_type": "TrustedLaunch"})
    await run(rig, {**version(version="1.1.0"), "security_type": "TrustedLaunch"}, origin=OTHER)
    assert len(left(rig)) == 3


async def test_a_definition_of_another_state_is_refused(rig: Rig) -> None:
    await run(rig, version())
    with pytest.raises(DefinitionDiffers, match="osState"):
        await run(rig, version(version="2.0.0", os_state="Generalized"), origin=OTHER)


async def test_a_definition_with_anothers_version_stays(rig: Rig) -> None:
    store = MemoryJobStore()
    await run(rig, version(), store=store)
    await run(rig, version(version="1.1.0"), origin=OTHER)
    reasons = await UploadStage().clean_up(rig.job(target=version(), store=store))
    assert len(reasons) == 1
    assert "in use" in reasons[0]
    assert left(rig) == [f"imageport/{GALLERY}/win11", f"imageport/{GALLERY}/win11/1.1.0"]


@pytest.mark.parametrize(
    "target", [{"result": "image-version"}, {"result": "snapshot", "gallery": version()["gallery"]}]
)
async def test_result_and_gallery_belong_together(rig: Rig, target) -> None:
    with pytest.raises(ResultMissing):
        await run(rig, target)


async def test_the_official_sdk_sees_a_snapshot_of_the_disks_kind(rig: Rig) -> None:
    await run(rig, {"result": "snapshot", "security_type": "TrustedLaunch", "sku": "Premium_ZRS"})
    found = await sdk(rig, lambda client: client.snapshots.get("imageport", "golden"))
    assert (found.os_type, found.hyper_v_generation) == ("Windows", "V2")
    assert found.incremental
    assert found.sku.name == "Standard_ZRS"
    assert found.security_profile.security_type == "TrustedLaunch"
    assert found.tags["imageport-state"] == "final"


async def test_the_official_sdk_sees_a_version_in_every_region(rig: Rig) -> None:
    await run(rig, version(regions=("northeurope",), replicas=2))
    where = ("imageport", GALLERY, "win11")
    found = await sdk(rig, lambda client: client.gallery_image_versions.get(*where, "1.0.0"))
    assert found.provisioning_state == "Succeeded"
    assert [one.name for one in found.publishing_profile.target_regions] == [
        "westeurope", "northeurope",
    ]  # fmt: skip
    image = await sdk(rig, lambda client: client.gallery_images.get(*where))
    assert (image.os_state, image.hyper_v_generation) == ("Specialized", "V2")
    assert image.identifier.sku == "win11"


async def sdk(rig: Rig, ask):
    """Ask the official client, from a thread."""
    pool = Pool("sdk", 1)
    try:
        return await run_blocking(pool, lambda: ask(compute_client(rig.sim, verify=rig.ca_file)))
    finally:
        pool.close()


async def test_a_definition_that_still_counts_a_deleted_version_is_deleted_later(rig: Rig) -> None:
    store = MemoryJobStore()
    await run(rig, version(), store=store)
    nested = Fault(
        action="status", status=409, code="CannotDeleteResource", op="arm.image-delete", nth=[1, 2]
    )
    rig.faults(nested)
    assert await UploadStage().clean_up(rig.job(target=version(), store=store)) == []
    assert left(rig) == []


async def test_a_version_that_failed_is_made_anew_by_a_retry(rig: Rig) -> None:
    store = MemoryJobStore()
    shape = Galleries._shape
    with pytest.MonkeyPatch.context() as broken:

        def failed(self: Galleries, record: object) -> dict[str, object]:
            shown = shape(self, record)
            shown["properties"]["provisioningState"] = "Failed"
            return shown

        broken.setattr(Galleries, "_shape", failed)
        with pytest.raises(TargetRefused, match="Failed"):
            await run(rig, version(), store=store)
        broken.setattr(
            Galleries,
            "_shape",
            lambda self, record: (
                failed(self, record)
                if record.path.endswith("1.0.0") and not puts(rig)
                else shape(self, record)
            ),
        )
        rig.sim.stats.reset()
        await run(rig, version(), store=store, attempt=2)
    assert puts(rig) == 1
    assert left(rig) == made(version())
    assert stored(rig, version()) == rig.expected()


def puts(rig: Rig) -> int:
    return rig.sim.stats.requests["arm.version-put"]
