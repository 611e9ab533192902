"""EBS snapshots as a state machine: pending -> completed, or error once a time-out cancelled it. Knows no HTTP."""

import msgspec

from appliance.sim.aws.state import Snapshot
from appliance.sim.aws.vault import Vault
from appliance.sim.call import Refusal

VOLUME_GIB_MOST = 65_536
TAGS_MOST = 50
_TIMEOUT_MIN = (10, 4320)


class Tag(msgspec.Struct):
    """One tag as the JSON APIs write it."""

    Key: str
    Value: str = ""


class StartArgs(msgspec.Struct, forbid_unknown_fields=True):
    """The body of StartSnapshot, by the names of the service model."""

    VolumeSize: int
    ClientToken: str
    Description: str = ""
    Encrypted: bool = False
    KmsKeyArn: str = ""
    ParentSnapshotId: str = ""
    Tags: list[Tag] = []
    Timeout: int = 60


class Snapshots:
    """All snapshots of the account.

    Args:
        unseen_s: Seconds after StartSnapshot in which the data plane does not know the snapshot yet.
        complete_s: Seconds from CompleteSnapshot until a snapshot is completed.
    """

    def __init__(self, vault: Vault, *, unseen_s: float, complete_s: float) -> None:
        self._vault = vault
        self._unseen_s = unseen_s
        self._complete_s = complete_s

    def start(self, args: StartArgs, now: float) -> Snapshot:
        """Begin a snapshot, or return the one that the same token began."""
        _check(args)
        asked = msgspec.json.encode(args).decode()
        for known in self._vault.state.snapshots.values():
            if known.client_token == args.ClientToken:
                if known.asked != asked:
                    raise Refusal(503, "ConflictException", "The token was used with other values.")
                return known
        by_default = self._vault.state.encrypted_by_default
        made = Snapshot(
            id=self._vault.new_id("snap"),
            volume_gib=args.VolumeSize,
            started=now,
            touched=now,
            file=self._vault.new_file(),
            client_token=args.ClientToken,
            asked=asked,
            description=args.Description,
            timeout_min=args.Timeout,
            encrypted=args.Encrypted or by_default,
            kms_key=args.KmsKeyArn,
            tags={tag.Key: tag.Value for tag in args.Tags},
        )
        self._vault.state.snapshots[made.id] = made
        self._vault.data(made)
        self._vault.save()
        return made

    def find(self, snapshot_id: str, now: float) -> Snapshot:
        """Return a pending snapshot or raise ResourceNotFoundException."""
        snapshot = self.current(snapshot_id, now)
        if snapshot is None or now < snapshot.started + self._unseen_s or snapshot.state == "error":
            message = f"The snapshot {snapshot_id} does not exist."
            raise Refusal(404, "ResourceNotFoundException/SNAPSHOT_NOT_FOUND", message)
        return snapshot

    def writable(self, snapshot_id: str, now: float) -> Snapshot:
        """Return a snapshot that takes blocks."""
        snapshot = self.find(snapshot_id, now)
        if snapshot.completed_at:
            message = f"The snapshot {snapshot_id} is completed."
            raise Refusal(400, "ValidationException/INVALID_SNAPSHOT_ID", message)
        return snapshot

    def readable(self, snapshot_id: str, now: float) -> Snapshot:
        """Return a completed snapshot."""
        snapshot = self.find(snapshot_id, now)
        if snapshot.state != "completed":
            message = f"The snapshot {snapshot_id} is {snapshot.state}."
            raise Refusal(400, "ValidationException/INVALID_SNAPSHOT_ID", message)
        return snapshot

    def complete(self, snapshot: Snapshot, now: float) -> None:
        """End the writing; done twice is done once."""
        if not snapshot.completed_at:
            snapshot.completed_at = now + self._complete_s
            self._settle(snapshot, now)
            self._vault.save()

    def current(self, snapshot_id: str, now: float) -> Snapshot | None:
        """Return a snapshot in the state that it has now."""
        snapshot = self._vault.state.snapshots.get(snapshot_id)
        if snapshot is not None:
            self._settle(snapshot, now)
        return snapshot

    def all(self, now: float) -> list[Snapshot]:
        """Return every snapshot in the state that it has now."""
        for snapshot in self._vault.state.snapshots.values():
            self._settle(snapshot, now)
        return list(self._vault.state.snapshots.values())

    def progress(self, snapshot: Snapshot, now: float) -> str:
        """Return its progress as DescribeSnapshots shows it."""
        if snapshot.state == "completed":
            return "100%"
        if not snapshot.completed_at or not self._complete_s:
            return "0%"
        left = max(0.0, snapshot.completed_at - now)
        return f"{int(100 * (1 - left / self._complete_s))}%"

    def _settle(self, snapshot: Snapshot, now: float) -> None:
        if snapshot.state != "pending":
            return
        if snapshot.completed_at and now >= snapshot.completed_at:
            snapshot.state = "completed"
        elif not snapshot.completed_at and now > snapshot.touched + 60 * snapshot.timeout_min:
            snapshot.state = "error"


def _check(args: StartArgs) -> None:
    least, most = _TIMEOUT_MIN
    rules = (
        (1 <= args.VolumeSize <= VOLUME_GIB_MOST, f"VolumeSize {args.VolumeSize}"),
        (least <= args.Timeout <= most, f"Timeout {args.Timeout}: {least} to {most} minutes"),
        (0 < len(args.ClientToken) <= 255, "ClientToken is required, up to 255 letters"),
        (not args.KmsKeyArn or args.Encrypted, "KmsKeyArn needs Encrypted"),
        (not (args.Encrypted and args.ParentSnapshotId), "Encrypted with ParentSnapshotId"),
        (not args.ParentSnapshotId, "ParentSnapshotId is not simulated"),
        (len(args.Tags) <= TAGS_MOST, f"{len(args.Tags)} tags"),
        (
            not any(tag.Key.lower().startswith("aws:") for tag in args.Tags),
            "a tag begins with aws:",
        ),
        (all(len(t.Key) <= 128 and len(t.Value) <= 256 for t in args.Tags), "a tag is too long"),
        (len({tag.Key for tag in args.Tags}) == len(args.Tags), "a tag is there twice"),
    )
    for holds, why in rules:
        if not holds:
            raise Refusal(400, "ValidationException/INVALID_PARAMETER_VALUE", f"Invalid: {why}.")
