import json
from dataclasses import replace

import pytest

from protocol.acceptor import Accept
from protocol.codec import decode
from protocol.messages import MAX_COMMAND
from protocol.ops import CancelArgs, UploadArgs
from protocol.sealing import SealScope, unseal
from protocol.signed import SigningKey
from relay.signer.callers import add as add_caller
from relay.signer.config import Limits
from tests.support.signer_device import CAPS, TENANT
from tests.support.signer_kit import START_MS, Kit, make_kit, sealed_json

SECRET = b"correct horse battery staple"


@pytest.fixture
def kit() -> Kit:
    return make_kit()


def _code(response: object) -> str:
    return str(json.loads(response.body)["code"])  # type: ignore[attr-defined]


def _upload(kit: Kit, device: object, **changes: object) -> dict[str, object]:
    spec = kit.spec(device)  # type: ignore[arg-type]
    request = str(spec["request"])
    args = {
        "source": {
            "kind": "smb",
            "server": "files.example",
            "share": "images",
            "credential": sealed_json(kit, SECRET, request=request, path="source.credential"),
        },
        "path": "golden.vhdx",
        "target": {"kind": "local", "name": "disks", "disk": "golden"},
    }
    return {**spec, "op": "upload", "args": args, **changes}


def test_a_job_is_accepted_by_its_appliance_as_it_was_signed(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device, workflow="w-1", valid_s=60, start_by_s=30)
    verdict = device.take(kit.envelope(job))
    assert isinstance(verdict, Accept)
    command = verdict.command
    assert (command.id.hex(), command.seq, command.epoch) == (job["id"], job["seq"], 1)
    assert (command.exp, command.start_by) == (START_MS + 60_000, START_MS + 30_000)
    assert command.workflow == "w-1"
    assert verdict.digest.hex() == job["digest"]


def test_numbers_of_one_appliance_form_a_chain_that_it_takes(kit: Kit) -> None:
    device = kit.enrol()
    jobs = [kit.order(device) for _ in range(5)]
    assert [job["seq"] for job in jobs] == [1, 2, 3, 4, 5]
    assert all(isinstance(device.take(kit.envelope(job)), Accept) for job in jobs)


def test_answer_is_202_with_location(kit: Kit) -> None:
    device = kit.enrol()
    response = kit.call("POST", "/v1/jobs", kit.spec(device))
    body = json.loads(response.body)
    assert response.status == 202
    assert response.headers["location"] == f"/v1/jobs/{body['id']}"
    assert set(body) == {"id", "digest", "appliance", "epoch", "seq"}
    assert kit.effects.poke == {device.id}


def test_a_secret_is_sealed_anew_to_appliance_and_command_and_lies_nowhere_in_clear(
    kit: Kit,
) -> None:
    device = kit.enrol()
    job = json.loads(kit.call("POST", "/v1/jobs", _upload(kit, device)).body)
    verdict = device.take(kit.envelope(job))
    assert isinstance(verdict, Accept)
    args = decode(verdict.command.args, UploadArgs, limit=MAX_COMMAND)
    sealed = args.source.credential  # type: ignore[union-attr]
    assert sealed is not None
    scope = SealScope(TENANT, device.id, bytes.fromhex(job["id"]), "source.credential")
    assert unseal(sealed, (device.seal,), scope) == SECRET
    assert SECRET not in kit.conn.serialize()


@pytest.mark.parametrize("change", ["request", "field", "tenant", "caller"])
def test_a_secret_sealed_for_something_else_is_refused(kit: Kit, change: str) -> None:
    device = kit.enrol()
    spec = _upload(kit, device)
    if change == "request":
        spec["request"] = "ff" * 16
    elif change == "field":
        spec["args"]["source"]["credential"] = sealed_json(  # type: ignore[index]
            kit, SECRET, request=str(spec["request"]), path="target.credential"
        )
    elif change == "caller":
        other = SigningKey.generate().kid.hex()
        spec["args"]["source"]["credential"] = sealed_json(  # type: ignore[index]
            kit, SECRET, request=str(spec["request"]), path="source.credential", caller=other
        )
    else:
        kit.authority.keys = replace(kit.authority.keys, vault=(type(kit.vault).generate(),))
    response = kit.call("POST", "/v1/jobs", spec)
    assert _code(response) in {"secret.open-failed", "secret.seal-key-unknown"}
    assert kit.line(device).head.have == 0


def test_the_same_request_again_gets_the_same_answer_and_signs_nothing(kit: Kit) -> None:
    device = kit.enrol()
    request = kit.signed("POST", "/v1/jobs", kit.spec(device), key="once")
    first, second = kit.send(request), kit.send(request)
    assert (second.status, second.body) == (first.status, first.body)
    assert kit.line(device).head.have == 1


def test_an_idempotency_key_of_another_body_is_refused(kit: Kit) -> None:
    device = kit.enrol()
    kit.call("POST", "/v1/jobs", kit.spec(device), key="once")
    response = kit.call("POST", "/v1/jobs", kit.spec(device), key="once")
    assert (response.status, _code(response)) == (422, "signer.idempotency-reuse")


def test_a_missing_idempotency_key_is_named(kit: Kit) -> None:
    device = kit.enrol()
    response = kit.call("POST", "/v1/jobs", kit.spec(device), key="")
    assert _code(response) == "signer.idempotency-key"


def test_a_request_id_is_used_once_even_by_another_caller(kit: Kit) -> None:
    device = kit.enrol()
    other = SigningKey.generate()
    add_caller(kit.conn, other.public, name="b", tenant=TENANT, role="operator", at=0)
    spec = kit.spec(device)
    kit.call("POST", "/v1/jobs", spec)
    response = kit.call("POST", "/v1/jobs", spec, caller=other)
    assert (response.status, _code(response)) == (409, "signer.request-reused")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"op": "format-everything"}, "signer.bad-spec"),
        ({"op": "cancel"}, "signer.bad-spec"),
        ({"args": {"checks": [], "more": 1}}, "signer.bad-spec"),
        ({"args": {"checks": "all"}}, "signer.bad-spec"),
        ({"args_v": 2}, "signer.bad-spec"),
        ({"valid_s": 30 * 24 * 3600}, "signer.bad-spec"),
        ({"valid_s": 0}, "signer.bad-request"),
        ({"request": "short"}, "signer.bad-request"),
        ({"surprise": True}, "signer.bad-request"),
        ({"appliance": "nobody"}, "signer.not-found"),
        ({"tenant": "other"}, "signer.not-found"),
        ({"retry_of": "00" * 16}, "signer.not-found"),
    ],
)
def test_a_spec_that_does_not_fit_signs_nothing(
    kit: Kit, changes: dict[str, object], code: str
) -> None:
    device = kit.enrol()
    response = kit.call("POST", "/v1/jobs", kit.spec(device, **changes))
    assert _code(response) == code
    assert kit.line(device).head.have == 0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{" * 5000, b'{"a":' * 3000, b"\xff\xfe", b"null"], ids=len
)
def test_bytes_that_are_no_spec_are_refused(kit: Kit, body: bytes) -> None:
    kit.enrol()
    request = kit.signed("POST", "/v1/jobs", {})
    response = kit.local("POST", "/v1/jobs", body)
    assert response.status == 400
    assert kit.send(replace(request, body=body)).status == 401  # its signature covers the body


def test_an_op_that_the_appliance_did_not_announce_is_not_signed(kit: Kit) -> None:
    device = kit.enrol()
    device.hello(caps=tuple(cap for cap in CAPS if not cap.startswith("diagnostics")))
    response = kit.call("POST", "/v1/jobs", kit.spec(device))
    assert _code(response) == "signer.not-accepted"
    assert json.loads(response.body)["reason"] == "protocol.unknown-op"
    assert kit.line(device).head.have == 0


def test_a_header_that_the_appliance_did_not_announce_is_not_signed(kit: Kit) -> None:
    device = kit.enrol()
    device.hello(caps=tuple(cap for cap in CAPS if not cap.startswith("command/")))
    assert _code(kit.call("POST", "/v1/jobs", kit.spec(device))) == "signer.not-accepted"
    assert kit.line(device).head.have == 0


def test_the_backlog_is_bounded_but_cancel_goes_through(kit: Kit) -> None:
    kit.authority.limits = Limits(backlog=2)
    device = kit.enrol()
    jobs = [kit.order(device) for _ in range(2)]
    full = kit.call("POST", "/v1/jobs", kit.spec(device))
    assert (full.status, _code(full)) == (429, "signer.backlog")
    assert kit.call("POST", f"/v1/jobs/{jobs[0]['id']}/cancel").status == 202
    for job in jobs:
        device.take(kit.envelope(job))
    device.ack()
    assert kit.call("POST", "/v1/jobs", kit.spec(device)).status == 202


def test_cancel_names_its_target_by_digest_and_lasts_as_long_as_the_key(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device)
    device.take(kit.envelope(job))
    cancelled = json.loads(kit.call("POST", f"/v1/jobs/{job['id']}/cancel").body)
    verdict = device.take(kit.envelope(cancelled))
    assert isinstance(verdict, Accept)
    args = decode(verdict.command.args, CancelArgs, limit=MAX_COMMAND)
    assert (args.id.hex(), args.digest.hex()) == (job["id"], job["digest"])
    assert verdict.command.exp == max(key.exp for key in kit.authority.ring.manifest.keys)


def test_a_failed_job_may_be_retried_once_and_a_good_one_never(kit: Kit) -> None:
    device = kit.enrol()
    good, bad = kit.order(device), kit.order(device)
    for job in (good, bad):
        device.take(kit.envelope(job))
    device.ack()
    device.result(good)
    device.result(bad, status="failed", code="share.gone")

    def retry(job: dict[str, object]) -> object:
        return kit.call("POST", "/v1/jobs", kit.spec(device, retry_of=job["id"]))

    assert _code(retry(good)) == "signer.not-retryable"
    assert retry(bad).status == 202  # type: ignore[attr-defined]
    assert _code(retry(bad)) == "signer.not-retryable"


def test_jobs_are_read_newest_first_page_by_page_and_by_their_tenant_only(kit: Kit) -> None:
    device = kit.enrol()
    ids = [kit.order(device)["id"] for _ in range(5)]
    seen, target = [], "/v1/jobs?limit=2"
    while target:
        page = json.loads(kit.call("GET", target).body)
        seen += [job["id"] for job in page["jobs"]]
        target = f"/v1/jobs?limit=2&cursor={page['next']}" if "next" in page else ""
    assert seen == ids[::-1]
    stranger = SigningKey.generate()
    add_caller(kit.conn, stranger.public, name="s", tenant="other", role="admin", at=0)
    assert json.loads(kit.call("GET", "/v1/jobs", caller=stranger).body) == {"jobs": []}
    assert kit.call("GET", f"/v1/jobs/{ids[0]}", caller=stranger).status == 404
    assert kit.call("POST", f"/v1/jobs/{ids[0]}/cancel", caller=stranger).status == 404


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "cursor=-1", "a=1", "limit=1&limit=2"]
)
def test_a_query_that_does_not_fit_is_refused(kit: Kit, query: str) -> None:
    assert kit.call("GET", f"/v1/jobs?{query}").status == 400


def test_state_follows_what_was_verified(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device)
    assert kit.job(job)["state"] == "queued"
    device.take(kit.envelope(job))
    device.ack()
    assert kit.job(job)["state"] == "accepted"
    device.result(job, status="failed", code="share.gone")
    shown = kit.job(job)
    assert (shown["state"], shown["code"], shown["result"]["n"]) == ("failed", "share.gone", 1)


def test_nothing_is_signed_before_the_appliance_was_compared_with_this_database(kit: Kit) -> None:
    device = kit.enrol()
    kit.restart()
    response = kit.call("POST", "/v1/jobs", kit.spec(device))
    assert _code(response) == "signer.line-locked"
    assert json.loads(response.body)["reason"] == "signer.unchecked"
    device.hello()
    assert kit.call("POST", "/v1/jobs", kit.spec(device)).status == 202
