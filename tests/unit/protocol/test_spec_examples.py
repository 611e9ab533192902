"""protocol/SPEC.md says what the code does: every example decodes and verifies, every refused one is refused."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from protocol.acceptor import judge
from protocol.caller import check_request
from protocol.codec import decode, encode
from protocol.enrol import EnrolRequest, check_proof
from protocol.errors import ProtocolError
from protocol.frames import parse_from_agent, parse_from_relay
from protocol.ids import digest_of
from protocol.inbox import judge_epoch, open_receipt, open_time
from protocol.keys import ROLE_OF_KIND, KeyRing
from protocol.messages import (
    MAX_INVENTORY,
    Ack,
    Command,
    Epoch,
    Event,
    Hello,
    Inventory,
    Kind,
    Layout,
    Manifest,
    Nack,
    Receipt,
    Record,
    Release,
    Result,
    Role,
    Time,
)
from protocol.sealing import Sealed, SealScope, unseal
from protocol.signed import open_statement, parse_envelope
from tests.support import protocol_world as w
from tests.support.protocol_blocks import PAGE, Block, parse_page, says
from tests.support.protocol_examples import FIRST_DIGEST
from tests.support.protocol_page import render
from tests.support.protocol_refusals import head_for, revoked_ring

TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = parse_page(TEXT)
EXAMPLES = {block.name: block for block in BLOCKS if block.kind == "example"}
REFUSED = [block for block in BLOCKS if block.kind == "refused"]
LAYOUTS: dict[Kind, type[Layout]] = {
    Kind.MANIFEST: Manifest,
    Kind.COMMAND: Command,
    Kind.EPOCH: Epoch,
    Kind.RECEIPT: Receipt,
    Kind.TIME: Time,
    Kind.RECORD: Record,
    Kind.RELEASE: Release,
    Kind.HELLO: Hello,
    Kind.ACK: Ack,
    Kind.NACK: Nack,
    Kind.INVENTORY: Inventory,
    Kind.RESULT: Result,
    Kind.EVENT: Event,
}


def _public(kind: Kind) -> bytes:
    keys = EXAMPLES["keys"].fields
    return bytes.fromhex(keys[ROLE_OF_KIND[kind].value])


def _names(*blocks: Block) -> list[str]:
    return [block.name for block in blocks]


def test_the_page_is_up_to_date() -> None:
    assert render(TEXT) == TEXT, "run `python -m tests.support.protocol_page`"


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_signed_example_verifies_and_says_what_the_page_says(kind: Kind) -> None:
    fields = EXAMPLES[kind.value].fields
    data = bytes.fromhex(fields["bytes"])
    envelope, layout = open_statement(
        kind, data, LAYOUTS[kind], public=_public(kind), limit=MAX_INVENTORY
    )
    assert json.loads(fields["says"]) == json.loads(says(layout))
    assert envelope.digest.hex() == fields["digest"]
    assert encode(layout) == envelope.p, "an independent encoder gives the same bytes"


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_every_kind_has_a_refused_example(kind: Kind) -> None:
    assert any(block.name.startswith(f"{kind.value}-") for block in REFUSED)


@pytest.mark.parametrize(
    "block", [b for b in EXAMPLES.values() if "frame-to" in b.fields], ids=lambda b: b.name
)
def test_frame_example_decodes(block: Block) -> None:
    parse = parse_from_relay if block.fields["frame-to"] == "agent" else parse_from_agent
    frame = parse(bytes.fromhex(block.fields["bytes"]))
    assert says(frame) == block.fields["says"]


def test_chain_example_is_the_chain() -> None:
    fields = EXAMPLES["chain"].fields
    head = w.HEAD_0
    assert head.hash.hex() == fields["head-0"] == EXAMPLES["record"].fields["digest"]
    assert fields["digest-1"] == EXAMPLES["command"].fields["digest"] == FIRST_DIGEST.hex()
    assert head.after(FIRST_DIGEST).hash.hex() == fields["head-1"]


def test_sealed_example_opens() -> None:
    fields = EXAMPLES["seal"].fields
    tenant, appliance, command, path = json.loads(fields["scope"])
    scope = SealScope(tenant, appliance, bytes.fromhex(command), path)
    kid = bytes.fromhex(fields["kid"])
    assert scope.info(kid).hex() == fields["info"]
    sealed = Sealed(kid=kid, ct=bytes.fromhex(fields["ct"]))
    assert unseal(sealed, [w.SEAL], scope).hex() == fields["clear"]


def test_enrolment_example_is_proven() -> None:
    fields = EXAMPLES["enrol"].fields
    request = decode(bytes.fromhex(fields["bytes"]), EnrolRequest, limit=4096)
    assert says(request) == fields["says"]
    check_proof(request, bytes.fromhex(fields["secret"]))


def test_request_example_is_signed() -> None:
    fields = EXAMPLES["request"].fields
    method, path = fields["request"].split(" ")
    check_request(
        bytes.fromhex(fields["caller"]),
        json.loads(fields["headers"]),
        method=method,
        path=path,
        body=fields["body"].encode(),
        now_ms=w.T0,
    )


def _raised(what: Callable[[], object]) -> str:
    try:
        what()
    except ProtocolError as err:
        return err.code
    return "accepted"


def _open(kind: Kind, data: bytes) -> object:
    if ROLE_OF_KIND[kind] is Role.DEVICE:
        return open_statement(
            kind, data, LAYOUTS[kind], public=w.DEVICE.public, limit=MAX_INVENTORY
        )
    return w.ring().key(parse_envelope(data, limit=MAX_INVENTORY), kind)


def _code(by: str, data: bytes) -> str:
    if by.startswith("open "):
        return _raised(lambda: _open(Kind(by.removeprefix("open ")), data))
    facts = w.facts(head=head_for(by))
    verdicts: dict[str, Callable[[], Any]] = {
        "judge": lambda: judge(data, facts),
        "judge-revoked": lambda: judge(data, w.facts(ring=revoked_ring())),
        "judge-epoch": lambda: judge_epoch(data, w.inbox_at(head_for(by)), facts),
    }
    if by in verdicts:
        return str(getattr(verdicts[by](), "code", "accepted"))
    readers: dict[str, Callable[[], object]] = {
        "manifest": lambda: KeyRing.open(data, root=w.ROOT.public, trusted=w.ring()),
        "receipt": lambda: open_receipt(data, facts),
        "time": lambda: open_time(data, facts),
        "frame-to-agent": lambda: parse_from_relay(data),
        "frame-to-relay": lambda: parse_from_agent(data),
    }
    return _raised(readers[by])


@pytest.mark.parametrize("block", REFUSED, ids=lambda b: b.name)
def test_refused_example_is_refused_with_its_code(block: Block) -> None:
    data = bytes.fromhex(block.fields["bytes"])
    assert _code(block.fields["by"], data) == block.fields["code"]


def test_digests_in_the_page_are_sha_256_of_the_payload() -> None:
    block = EXAMPLES["command"]
    payload = parse_envelope(bytes.fromhex(block.fields["bytes"]), limit=MAX_INVENTORY).p
    assert digest_of(payload).hex() == block.fields["digest"]
