"""EbsPlane: the EBS direct APIs (`/snapshots/...`), as strict as their reference says; errors in JSON.

Rules from the API reference of EBS direct APIs (service model 2019-11-02): blocks of 524288 bytes with their SHA-256,
tokens that make StartSnapshot repeatable, time-outs that cancel a snapshot, a checksum over all digests at the end.
"""

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from appliance.sim.aws.access import Access
from appliance.sim.aws.snapshots import Snapshots, StartArgs
from appliance.sim.aws.state import Snapshot
from appliance.sim.aws.vault import BLOCK, GIB, Vault
from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.stats import Stats

_Handler = Callable[[Call, bytes], Reply]

PREFIX = "/snapshots"
_BLOCK = re.compile(r"/snapshots/([a-z0-9-]+)/blocks/([0-9]{1,9})")
_LIST = re.compile(r"/snapshots/([a-z0-9-]+)/blocks")
_COMPLETE = re.compile(r"/snapshots/completion/([a-z0-9-]+)")
_PAGE_MOST = 10_000
_TOKEN_LIFE_S = 7 * 24 * 3600
_ACTIONS = {
    "start-snapshot": "ebs:StartSnapshot",
    "put-block": "ebs:PutSnapshotBlock",
    "complete": "ebs:CompleteSnapshot",
    "list-blocks": "ebs:ListSnapshotBlocks",
    "get-block": "ebs:GetSnapshotBlock",
}


class EbsPlane:
    """The data plane of snapshots."""

    def __init__(self, vault: Vault, access: Access, snapshots: Snapshots, stats: Stats) -> None:
        self._vault = vault
        self._access = access
        self._snapshots = snapshots
        self._stats = stats
        self._handlers: dict[str, _Handler] = {
            "start-snapshot": self._start,
            "complete": self._complete,
            "list-blocks": self._list,
            "get-block": self._get,
        }

    def operation(self, call: Call) -> str:
        """Name the operation: ebs.*."""
        return f"ebs.{_name(call)}"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        name = _name(call)
        chunks = await call.body.read()
        self._stats.bytes_received += sum(map(len, chunks)) if name == "put-block" else 0
        body = b"".join(chunks)
        self._access.check(call, body, "ebs")
        if name == "unknown":
            raise Refusal(404, "UnknownOperationException", f"{call.method} {call.path}")
        self._access.allow(_ACTIONS[name])
        if name == "put-block":
            return self._put(call, chunks, body)
        return self._handlers[name](call, body)

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into JSON; a code "Type/REASON" has both."""
        kind, _, reason = _CODES.get(refusal.code, refusal.code).partition("/")
        body: dict[str, Any] = {"Message": refusal.message}
        if reason:
            body["Reason"] = reason
        if refusal.detail:
            body["Detail"] = refusal.detail
        headers = {"x-amzn-ErrorType": kind, **refusal.headers}
        return _json(refusal.status, body, headers)

    def _start(self, call: Call, body: bytes) -> Reply:
        try:
            args = msgspec.json.decode(body or b"{}", type=StartArgs)
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise _invalid("INVALID_PARAMETER_VALUE", str(err)) from err
        if args.Tags:
            self._access.allow("ec2:CreateTags")
        made = self._snapshots.start(args, call.now)
        answer = {
            "SnapshotId": made.id,
            "OwnerId": self._vault.state.identity.account,
            "Status": made.state,
            "StartTime": made.started,
            "VolumeSize": made.volume_gib,
            "BlockSize": BLOCK,
            "Description": made.description,
            "Tags": [{"Key": key, "Value": value} for key, value in made.tags.items()],
        }
        return _json(201, answer | ({"KmsKeyArn": made.kms_key} if made.kms_key else {}))

    def _put(self, call: Call, chunks: list[bytes], body: bytes) -> Reply:
        snapshot_id, index = _block_of(call)
        snapshot = self._snapshots.writable(snapshot_id, call.now)
        if index >= snapshot.volume_gib * GIB // BLOCK:
            raise _invalid("INVALID_BLOCK", f"Block {index} is behind the volume's end.")
        told = call.header("x-amz-Data-Length")
        if told != str(BLOCK) or len(body) != BLOCK:
            message = (
                f"The block must be {BLOCK} bytes; x-amz-Data-Length {told!r}, body {len(body)}."
            )
            raise _invalid("INVALID_PARAMETER_VALUE", message)
        digest = hashlib.sha256(body).digest()
        self._require_checksum(call, digest)
        data = self._vault.data(snapshot)
        if "lose-write" in call.marks:
            data.note(index, digest)
        else:
            data.put(index, chunks if len(chunks) < 512 else [body], digest)
        if "flip-stored" in call.marks:
            data.file.flip(index * BLOCK + BLOCK // 3)
        snapshot.touched = call.now
        self._stats.bytes_stored += BLOCK
        headers = {
            "x-amz-Checksum": b64encode(digest).decode(),
            "x-amz-Checksum-Algorithm": "SHA256",
        }
        return _json(201, {}, headers)

    def _require_checksum(self, call: Call, digest: bytes) -> None:
        if call.header("x-amz-Checksum-Algorithm") != "SHA256":
            raise _invalid("INVALID_PARAMETER_VALUE", "x-amz-Checksum-Algorithm must be SHA256.")
        if _decoded(call.header("x-amz-Checksum")) != digest:
            raise _invalid("INVALID_BLOCK", "The checksum is not that of the block received.")

    def _complete(self, call: Call, _body: bytes) -> Reply:
        snapshot_id = _matched(_COMPLETE, call)[0]
        snapshot = self._snapshots.find(snapshot_id, call.now)
        count = call.header("x-amz-ChangedBlocksCount")
        data = self._vault.data(snapshot)
        blocks = data.blocks()
        if not count.isdecimal() or int(count) != len(blocks):
            message = f"ChangedBlocksCount is {count!r}, {len(blocks)} blocks were written."
            raise _invalid("INVALID_PARAMETER_VALUE", message)
        told = call.header("x-amz-Checksum")
        if told:
            algorithm = call.header("x-amz-Checksum-Algorithm")
            method = call.header("x-amz-Checksum-Aggregation-Method")
            if (algorithm, method) != ("SHA256", "LINEAR"):
                raise _invalid("INVALID_PARAMETER_VALUE", f"Checksum by {algorithm} {method}.")
            all_of_it = hashlib.sha256(b"".join(data.digest(index) for index in blocks)).digest()
            if _decoded(told) != all_of_it:
                raise _invalid(
                    "INVALID_PARAMETER_VALUE", "The checksum is not that of the snapshot."
                )
        self._snapshots.complete(snapshot, call.now)
        return _json(202, {"Status": snapshot.state})

    def _list(self, call: Call, _body: bytes) -> Reply:
        snapshot = self._snapshots.readable(_matched(_LIST, call)[0], call.now)
        start = _number(call, "startingBlockIndex", 0)
        most = _number(call, "maxResults", _PAGE_MOST)
        if not 100 <= most <= _PAGE_MOST:
            raise _invalid("INVALID_PARAMETER_VALUE", f"MaxResults {most}: 100 to {_PAGE_MOST}.")
        if token := call.query.get("pageToken"):
            start = self._page(token, snapshot)
        blocks = self._vault.data(snapshot).blocks(start)
        shown, rest = blocks[:most], blocks[most:]
        answer: dict[str, Any] = {
            "Blocks": [
                {"BlockIndex": index, "BlockToken": self._token(snapshot, index)} for index in shown
            ],
            "ExpiryTime": call.now + _TOKEN_LIFE_S,
            "VolumeSize": snapshot.volume_gib,
            "BlockSize": BLOCK,
        }
        if rest:
            answer["NextToken"] = f"{rest[0]}-{self._token(snapshot, rest[0])}"
        return _json(200, answer)

    def _get(self, call: Call, _body: bytes) -> Reply:
        snapshot_id, index = _block_of(call)
        snapshot = self._snapshots.readable(snapshot_id, call.now)
        if call.query.get("blockToken") != self._token(snapshot, index):
            raise _invalid("INVALID_BLOCK_TOKEN", "The block token is not one of this block.")
        data = self._vault.data(snapshot)
        body = data.file.read(index * BLOCK, BLOCK)
        self._stats.bytes_read += BLOCK
        headers = {
            "Content-Type": "application/octet-stream",
            "x-amz-Data-Length": str(BLOCK),
            "x-amz-Checksum": b64encode(data.digest(index)).decode(),
            "x-amz-Checksum-Algorithm": "SHA256",
        }
        return Reply(200, headers, body)

    def _page(self, token: str, snapshot: Snapshot) -> int:
        index, _, proof = token.partition("-")
        if not index.isdecimal() or proof != self._token(snapshot, int(index)):
            raise _invalid("INVALID_PAGE_TOKEN", "The page token is not one of this snapshot.")
        return int(index)

    def _token(self, snapshot: Snapshot, index: int) -> str:
        secret = self._vault.state.identity.token_secret
        return hashlib.sha256(f"{secret}/{snapshot.id}/{index}".encode()).hexdigest()[:40]


_CODES = {
    "UnauthorizedOperation": "AccessDeniedException/UNAUTHORIZED_ACCOUNT",
    "ExpiredToken": "ExpiredTokenException",
    "RequestExpired": "InvalidSignatureException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "InternalError": "InternalServerException",
}


def _name(call: Call) -> str:
    path, method = call.path, call.method
    found = {
        ("POST", path == "/snapshots"): "start-snapshot",
        ("PUT", _BLOCK.fullmatch(path) is not None): "put-block",
        ("POST", _COMPLETE.fullmatch(path) is not None): "complete",
        ("GET", _LIST.fullmatch(path) is not None): "list-blocks",
    }
    if method == "GET" and _BLOCK.fullmatch(path):
        return "get-block"
    return found.get((method, True), "unknown")


def _block_of(call: Call) -> tuple[str, int]:
    snapshot_id, index = _matched(_BLOCK, call)
    return snapshot_id, int(index)


def _matched(pattern: re.Pattern[str], call: Call) -> tuple[str, ...]:
    found = pattern.fullmatch(call.path)
    return found.groups() if found else ("",)


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not text.isdecimal():
        raise _invalid("INVALID_PARAMETER_VALUE", f"{name} is {text!r}.")
    return int(text)


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""


def _invalid(reason: str, message: str) -> Refusal:
    return Refusal(400, f"ValidationException/{reason}", message)


def _json(status: int, body: object, headers: dict[str, str] | None = None) -> Reply:
    told = {"Content-Type": "application/json", **(headers or {})}
    return Reply(status, told, msgspec.json.encode(body))
