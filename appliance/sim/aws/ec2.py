"""Ec2Plane: the EC2 calls (`POST /`, query protocol) around snapshots, images, volumes and instances; errors in XML.

Each call is first held against the account's policy, as `ec2:<Action>`; `DryRun` ends there, as on the real service.
"""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from appliance.sim.aws.access import Access
from appliance.sim.aws.query import Tree, need, read_form, require_known, tag_set, xml
from appliance.sim.aws.snapshots import Snapshots
from appliance.sim.aws.state import Snapshot
from appliance.sim.aws.vault import Vault
from appliance.sim.call import Call, Refusal, Reply

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
Handler = Callable[[Tree, float], Tree]
Readers = dict[str, Callable[[Tree], str]]
"""Name of a filter -> what it looks at."""


class Ec2Plane:
    """The control plane."""

    def __init__(self, access: Access, handlers: dict[str, tuple[set[str], Handler]]) -> None:
        """Answer by `handlers`: action -> (parameters that it knows, what it does)."""
        self._access = access
        self._handlers = handlers

    def operation(self, call: Call) -> str:
        """Name the operation; which action it is stands in the body, which has not come yet."""
        return "ec2.call" if call.method == "POST" else "ec2.unknown"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        body = b"".join(await call.body.read())
        self._access.check(call, body, "ec2")
        args = read_form(body)
        action = str(args.get("Action", ""))
        if action not in self._handlers:
            raise Refusal(400, "InvalidAction", f"The action {action} is not simulated.")
        self._access.allow(f"ec2:{action}")
        known, handler = self._handlers[action]
        require_known(args, known | {"DryRun"})
        if tagged := args.get("TagSpecification"):
            self._access.allow("ec2:CreateTags")
            _check_tags(tagged)
        if args.get("DryRun") == "true":
            message = "Request would have succeeded, but DryRun flag is set."
            raise Refusal(412, "DryRunOperation", message)
        answer = {"requestId": str(uuid.uuid4()), **handler(args, call.now)}
        return _xml(200, xml(f"{action}Response", answer), namespace=NAMESPACE)

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into XML."""
        status, code = _CODES.get(refusal.code, (refusal.status, refusal.code))
        error = {"Code": code, "Message": refusal.message}
        root = {"Errors": {"Error": error}, "RequestID": str(uuid.uuid4())}
        reply = _xml(status, xml("Response", root))
        reply.headers |= refusal.headers
        return reply


_CODES = {
    "ExpiredToken": (400, "RequestExpired"),
    "RequestExpired": (400, "RequestExpired"),
    "SignatureDoesNotMatch": (401, "AuthFailure"),
    "InvalidClientTokenId": (401, "AuthFailure"),
    "MissingAuthenticationToken": (403, "MissingAuthenticationToken"),
}


def _xml(status: int, document: str, *, namespace: str = "") -> Reply:
    if namespace:
        name = document[1 : document.index(">")]
        document = f'<{name} xmlns="{namespace}">' + document[len(name) + 2 :]
    text = '<?xml version="1.0" encoding="UTF-8"?>\n' + document
    return Reply(status, {"Content-Type": "text/xml;charset=UTF-8"}, text.encode())


def _check_tags(specifications: list[Tree]) -> None:
    for specification in specifications:
        for tag in specification.get("Tag", []):
            if str(tag.get("Key", "")).lower().startswith("aws:"):
                raise Refusal(400, "InvalidParameterValue", "Tag keys must not begin with aws:.")


def filtered(items: list[Tree], args: Tree, readers: Readers) -> list[Tree]:
    """Return the items that all filters let through; an unknown filter is refused."""
    found = items
    for one in args.get("Filter", []):
        name, values = one.get("Name", ""), one.get("Value", [])
        if name.startswith("tag:"):
            key = name.removeprefix("tag:")
            found = [item for item in found if _tag(item, key) in values]
        elif name in readers:
            found = [item for item in found if readers[name](item) in values]
        else:
            message = f"The filter {name!r} is invalid or not simulated."
            raise Refusal(400, "InvalidParameterValue", message)
    return found


def _tag(item: Tree, key: str) -> str | None:
    return next((tag["value"] for tag in item.get("tagSet", []) if tag["key"] == key), None)


def snapshot_handlers(vault: Vault, snapshots: Snapshots) -> dict[str, tuple[set[str], Handler]]:
    """Return the actions on snapshots, tags and the account's encryption."""
    state = vault.state

    def shown(snapshot: Snapshot, now: float) -> Tree:
        return {
            "snapshotId": snapshot.id,
            "ownerId": state.identity.account,
            "status": snapshot.state,
            "progress": snapshots.progress(snapshot, now),
            "volumeSize": snapshot.volume_gib,
            "volumeId": "vol-ffffffff",
            "description": snapshot.description,
            "encrypted": snapshot.encrypted,
            "kmsKeyId": snapshot.kms_key or None,
            "startTime": iso(snapshot.started),
            "tagSet": tag_set(snapshot.tags),
        }

    def describe(args: Tree, now: float) -> Tree:
        wanted = args.get("SnapshotId", [])
        for one in wanted:
            if one not in state.snapshots:
                message = f"The snapshot '{one}' does not exist."
                raise Refusal(400, "InvalidSnapshot.NotFound", message)
        items = [shown(s, now) for s in snapshots.all(now) if not wanted or s.id in wanted]
        readers = {"status": lambda item: str(item["status"])}
        return {"snapshotSet": filtered(items, args, readers)}

    def delete(args: Tree, now: float) -> Tree:
        wanted = need(args, "SnapshotId")
        snapshot = snapshots.current(wanted, now)
        if snapshot is None:
            message = f"The snapshot '{wanted}' does not exist."
            raise Refusal(400, "InvalidSnapshot.NotFound", message)
        users = [image.id for image in state.images.values() if image.snapshot == wanted]
        if users:
            message = f"The snapshot {wanted} is currently in use by {users[0]}"
            raise Refusal(400, "InvalidSnapshot.InUse", message)
        vault.drop_snapshot(snapshot)
        return {"return": True}

    def tag(args: Tree, _now: float) -> Tree:
        for resource in need(args, "ResourceId"):
            place = next(
                (
                    shelf[resource]
                    for shelf in (state.snapshots, state.images, state.volumes, state.instances)
                    if resource in shelf
                ),
                None,
            )
            if place is None:
                message = f"The ID '{resource}' does not exist."
                raise Refusal(400, "InvalidID", message)
            place.tags |= {one["Key"]: one.get("Value", "") for one in need(args, "Tag")}
        vault.save()
        return {"return": True}

    return {
        "DescribeSnapshots": (
            {"SnapshotId", "Owner", "Filter", "MaxResults", "NextToken"},
            describe,
        ),
        "DeleteSnapshot": ({"SnapshotId"}, delete),
        "CreateTags": ({"ResourceId", "Tag"}, tag),
        "GetEbsEncryptionByDefault": (
            set(),
            lambda _args, _now: {"ebsEncryptionByDefault": state.encrypted_by_default},
        ),
    }


def iso(seconds: float) -> str:
    """Return a time as AWS writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
