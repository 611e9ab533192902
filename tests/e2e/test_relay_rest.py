"""The REST interface: keys and tenants, errors, idempotency, pages, artifacts, what passes through to the signer."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.control import Call, Reply
from protocol.messages import Kind
from relay.config import Limits
from tests.support import protocol_world as w
from tests.support.relay_world import World, commands, running

pytestmark = pytest.mark.e2e


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as made:
        await made.know_appliance()
        yield made


async def ask(
    world: World, method: str, path: str, *, key: str | None = "admin", **kwargs: Any
) -> tuple[int, Any, Any]:
    headers = {**(world.as_(key) if key else {}), **kwargs.pop("headers", {})}
    async with world.http.request(method, world.url + path, headers=headers, **kwargs) as answer:
        body = await answer.read()
        is_json = "json" in answer.content_type
        return (
            answer.status,
            (await answer.json(content_type=None) if is_json else body),
            answer.headers,
        )


# --- keys, roles, tenants ---


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer nobody", "Basic YWRtaW4=", "Bearer \u00ff"]
)
async def test_unknown_key_is_refused_on_every_protected_path(world: World, header: str) -> None:
    mine = f"/v1/appliances/{w.APPLIANCE}/record"
    for path in ("/v1/jobs", "/v1/events", mine, "/v1/keys", "/v1/audit", "/metrics"):
        status, body, headers = await ask(
            world, "GET", path, key=None, headers={"Authorization": header} if header else {}
        )
        assert (status, body["code"]) == (401, "relay.unauthorized")
        assert headers["WWW-Authenticate"] == "Bearer"
        assert "nobody" not in str(body)


@pytest.mark.parametrize(
    ("key", "method", "path"),
    [
        ("reader", "POST", "/v1/commands"),
        ("reader", "POST", "/v1/jobs"),
        ("reader", "PUT", f"/v1/artifacts/{'0' * 64}"),
        ("operator", "GET", "/v1/audit"),
        ("operator", "GET", "/metrics"),
        ("signer", "GET", "/v1/jobs"),
    ],
)
async def test_role_that_is_too_low_is_refused(
    world: World, key: str, method: str, path: str
) -> None:
    status, body, _ = await ask(world, method, path, key=key)
    assert (status, body["code"]) == (403, "relay.forbidden")


async def test_another_tenants_things_do_not_exist(world: World) -> None:
    (env,) = commands(1)
    _, queued = await world.post_command(env)
    for path in (
        f"/v1/jobs/{queued['id']}",
        f"/v1/jobs/{queued['id']}/events",
        f"/v1/appliances/{w.APPLIANCE}",
        f"/v1/appliances/{w.APPLIANCE}/record",
        "/v1/keys",
    ):
        status, body, _ = await ask(world, "GET", path, key="stranger")
        assert (status, body["code"]) == (404, "relay.not-found")
    for path in ("/v1/jobs", "/v1/appliances", "/v1/audit"):
        assert (await world.get(path, key="stranger"))["items"] == []


async def test_envelope_of_another_tenant_is_not_taken(world: World) -> None:
    status, _ = await world.post_command(w.signed_command(), key="stranger")
    assert status == 400
    assert await world.store.jobs("acme", before=0, limit=9) == ()


# --- errors ---

XML = {"Content-Type": "text/xml"}


@pytest.mark.parametrize(
    ("method", "path", "kwargs", "status", "code"),
    [
        ("GET", "/v1/nothing", {}, 404, "relay.not-found"),
        ("GET", "/v1/jobs/xyz", {}, 404, "relay.not-found"),
        ("DELETE", "/v1/jobs", {}, 405, "relay.method-not-allowed"),
        ("POST", "/v1/commands", {"data": b"x" * 600_000}, 413, "relay.too-large"),
        ("POST", "/v1/commands", {"data": b"x", "headers": XML}, 415, "relay.unsupported-media"),
        ("POST", "/v1/commands", {"json": {"envelope": "!"}}, 400, "relay.bad-request"),
        ("POST", "/v1/commands", {"json": {"envelope": "gA==", "more": 1}}, 400, "relay.bad-request"),
        ("POST", "/v1/commands", {"json": {"envelope": "gA=="}}, 400, "protocol.bad-field"),
        ("GET", "/v1/jobs?limit=0", {}, 400, "relay.bad-request"),
        ("GET", "/v1/jobs?limit=x", {}, 400, "relay.bad-request"),
        ("GET", "/v1/jobs?state=done", {}, 400, "relay.bad-request"),
        ("GET", "/v1/jobs?limit=1&limit=2", {}, 400, "relay.bad-request"),
        ("GET", "/v1/jobs?cursor=%21", {}, 400, "relay.bad-cursor"),
        ("GET", "/v1/audit?cursor=YWJj", {}, 400, "relay.bad-cursor"),
        ("GET", "/v1/jobs?unknown=1", {}, 400, "relay.bad-request"),
        ("POST", "/v1/jobs", {"json": {}}, 400, "relay.idempotency-key"),
        ("GET", "/v1/events", {"headers": {"Last-Event-ID": "x"}}, 400, "relay.bad-request"),
    ],
)  # fmt: skip
async def test_every_error_is_a_problem_document(
    world: World, method: str, path: str, kwargs: Any, status: int, code: str
) -> None:
    found, body, headers = await ask(world, method, path, **kwargs)
    assert (found, body["code"]) == (status, code)
    assert body["type"] == f"urn:imageport:error:{code}"
    assert body["status"] == status
    assert headers["Content-Type"] == "application/problem+json"


async def test_caller_who_asks_too_often_is_told_when_to_come_back(world: World) -> None:
    world.relay.api.requests.burst = 2
    answers = [await ask(world, "GET", "/v1/jobs") for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert answers[-1][1]["code"] == "relay.rate-limited"
    assert int(answers[-1][2]["Retry-After"]) >= 1
    assert (await ask(world, "GET", "/v1/jobs", key="reader"))[0] == 200


# --- commands ---


async def test_idempotency_key_answers_again_and_refuses_another_body(world: World) -> None:
    first, second = commands(2)
    answers = [
        await world.post_command(first, **{"Idempotency-Key": "k1"}),
        await world.post_command(first, **{"Idempotency-Key": "k1"}),
    ]
    assert answers[0] == answers[1]
    status, body = await world.post_command(second, **{"Idempotency-Key": "k1"})
    assert (status, body["code"]) == (422, "relay.key-reused")
    assert (await world.post_command(second, **{"Idempotency-Key": "k2"}))[0] == 202


async def test_command_for_an_unknown_appliance_is_not_kept(world: World) -> None:
    env = w.signed_command(audience="site-9")
    status, body = await world.post_command(env)
    assert (status, body["code"]) == (404, "relay.not-found")


async def test_json_and_msgpack_say_the_same(world: World) -> None:
    (env,) = commands(1)
    body = {"envelope": base64.b64encode(env).decode()}
    status, answer, headers = await ask(world, "POST", "/v1/commands", json=body)
    assert status == 202
    assert headers["Location"] == f"/v1/jobs/{answer['id']}"
    assert (await world.post_command(env)) == (202, answer)


# --- pages ---


async def test_jobs_come_in_pages_newest_first(world: World) -> None:
    for env in commands(5):
        await world.post_command(env)
    seen, cursor = [], ""
    while True:
        page = await world.get(f"/v1/jobs?limit=2{cursor}")
        seen += [job["seq"] for job in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [5, 4, 3, 2, 1]


async def test_audit_log_can_be_verified_by_its_reader(world: World) -> None:
    for env in commands(3):
        await world.post_command(env)
    before, cursor, count = bytes(32), "", 0
    while cursor is not None:
        page = await world.get(f"/v1/audit?limit=2{cursor}", key="admin")
        for row in page["items"]:
            fields = [row[name] for name in ("n", "at", "actor", "action", "subject", "detail")]
            before = hashlib.sha256(before + msgspec.msgpack.encode(fields)).digest()
            assert row["hash"] == before.hex()
            count += 1
        cursor = page["next"] and f"&cursor={page['next']}"
    assert count == 5  # record, manifest, three commands


async def test_keys_are_the_manifest_as_it_was_signed(world: World) -> None:
    found = await world.get("/v1/keys")
    env = w.envelope(Kind.MANIFEST, w.manifest(), w.ROOT)
    assert (found["serial"], base64.b64decode(found["manifest"])) == (1, env)


async def test_a_record_is_shown_as_it_was_signed(world: World) -> None:
    found = await world.get(f"/v1/appliances/{w.APPLIANCE}/record")
    env = w.envelope(Kind.RECORD, w.record(), w.RECORD)
    assert (found["serial"], base64.b64decode(found["record"])) == (1, env)


# --- artifacts ---


DATA = b"0123456789" * 1000
NAME = hashlib.sha256(DATA).hexdigest()


def part(first: int, last: int, size: int = len(DATA)) -> dict[str, Any]:
    return {
        "data": DATA[first : last + 1],
        "headers": {"Content-Range": f"bytes {first}-{last}/{size}"},
    }


async def test_artifact_goes_up_in_parts_and_down_by_range(world: World) -> None:
    path = f"/v1/artifacts/{NAME}"
    assert (await ask(world, "PUT", path, **part(0, 3999)))[:2] == (
        202,
        {"sha256": NAME, "size": 10_000, "received": 4000},
    )
    status, body, _ = await ask(world, "PUT", path, headers={"Content-Range": "bytes */10000"})
    assert (status, body["received"]) == (202, 4000)
    assert (await ask(world, "GET", path))[0] == 404
    assert (await ask(world, "PUT", path, **part(4000, 9999)))[0] == 201
    assert (await ask(world, "PUT", path, **part(0, 9999)))[0] == 200
    status, body, _ = await ask(world, "GET", path, key="reader", headers={"Range": "bytes=5-9"})
    assert (status, body) == (206, b"56789")
    assert (await ask(world, "GET", path, key="reader"))[1] == DATA
    assert (await ask(world, "GET", path, key="stranger"))[0] == 404


async def test_part_out_of_place_says_where_to_go_on(world: World) -> None:
    path = f"/v1/artifacts/{NAME}"
    await ask(world, "PUT", path, **part(0, 99))
    status, body, _ = await ask(world, "PUT", path, **part(50, 199))
    assert (status, body["code"], body["received"]) == (409, "relay.artifact-offset", 100)


async def test_wrong_bytes_are_dropped(world: World) -> None:
    path = f"/v1/artifacts/{'0' * 64}"
    status, body, _ = await ask(world, "PUT", path, data=DATA)
    assert (status, body["code"]) == (422, "relay.artifact-digest")
    assert (await ask(world, "GET", path))[0] == 404
    _, body, _ = await ask(world, "PUT", path, headers={"Content-Range": "bytes */10000"})
    assert body["received"] == 0


@pytest.mark.parametrize("value", ["bytes 5-4/10", "bytes 0-9/5", "items 0-1/2", "bytes 0-5/10000"])
async def test_range_that_does_not_fit_is_refused(world: World, value: str) -> None:
    path = f"/v1/artifacts/{NAME}"
    status, body, _ = await ask(world, "PUT", path, data=b"abc", headers={"Content-Range": value})
    assert (status, body["code"]) == (400, "relay.bad-request")


# --- through to the signer ---


async def test_job_without_a_signer_says_whether_there_will_be_one(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        status, body, _ = await ask(
            world, "POST", "/v1/jobs", json={}, headers={"Idempotency-Key": "a"}
        )
        assert (status, body["code"]) == (503, "relay.signer-away")
        world.relay.shared.signers.expected = False
        status, body, _ = await ask(
            world, "POST", "/v1/jobs", json={}, headers={"Idempotency-Key": "a"}
        )
        assert (status, body["code"]) == (501, "relay.no-signer")


async def test_signer_gets_the_callers_bytes_but_never_the_api_key(world: World) -> None:
    headers = {"Idempotency-Key": "k", "Imageport-Signature": "sig", "X-Other": "no"}
    async with world.signer() as signer, asyncio.TaskGroup() as group:
        answer = group.create_task(
            ask(
                world,
                "POST",
                "/v1/jobs?x=1",
                data=b'{"a": 1}',
                headers={**headers, "Content-Type": "application/json"},
            )
        )
        call = await signer.expect(Call)
        assert (call.method, call.path, call.body) == ("POST", "/v1/jobs?x=1", b'{"a": 1}')
        assert call.headers == {
            "content-type": "application/json",
            "accept": "*/*",
            "idempotency-key": "k",
            "imageport-signature": "sig",
        }
        await signer.send(
            Reply(
                call=call.call,
                status=202,
                headers={"Location": "/v1/jobs/1", "Set-Cookie": "x"},
                body=b"{}",
            )
        )
        status, _, got = await answer
        assert (status, got["Location"]) == (202, "/v1/jobs/1")
        assert "Set-Cookie" not in got


async def test_answer_under_a_key_is_given_again_without_the_signer_hearing_of_it(
    world: World,
) -> None:
    headers, as_json = {"Idempotency-Key": "k"}, {"content-type": "application/json"}
    async with world.signer() as signer:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(world, "POST", "/v1/jobs", json={}, headers=headers))
            call = await signer.expect(Call)
            status, body, _ = await ask(world, "POST", "/v1/jobs", json={}, headers=headers)
            assert (status, body["code"]) == (409, "relay.in-flight")
            await signer.send(
                Reply(call=call.call, status=202, headers=as_json, body=b'{"id":"1"}')
            )
        assert (await ask(world, "POST", "/v1/jobs", json={}, headers=headers))[1] == {"id": "1"}
        assert (await first)[1] == {"id": "1"}


async def test_signer_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(call_s=0.05)) as world, world.signer():
        status, body, _ = await ask(
            world, "POST", "/v1/jobs", json={}, headers={"Idempotency-Key": "k"}
        )
        assert (status, body["code"]) == (504, "relay.signer-slow")


async def test_signer_that_goes_fails_what_waits_for_it(world: World) -> None:
    async with asyncio.TaskGroup() as group:
        async with world.signer() as signer:
            answer = group.create_task(
                ask(world, "POST", "/v1/jobs", json={}, headers={"Idempotency-Key": "k"})
            )
            await signer.expect(Call)
        status, body, _ = await answer
        assert (status, body["code"]) == (504, "relay.signer-slow")


async def test_enrolment_needs_no_key_and_is_limited_by_address(world: World) -> None:
    world.relay.api.enrolments.burst = 1
    async with world.signer() as signer, asyncio.TaskGroup() as group:
        answer = group.create_task(ask(world, "POST", "/v1/enrolments", key=None, data=b"opaque"))
        call = await signer.expect(Call)
        assert (call.path, call.body) == ("/v1/enrolments", b"opaque")
        await signer.send(
            Reply(
                call=call.call,
                status=200,
                headers={"Content-Type": "application/msgpack"},
                body=b"\x80",
            )
        )
        assert (await answer)[:2] == (200, b"\x80")
        status, body, _ = await ask(world, "POST", "/v1/enrolments", key=None, data=b"opaque")
        assert (status, body["code"]) == (429, "relay.rate-limited")


# --- small things ---


async def test_health_and_metrics(world: World) -> None:
    assert (await ask(world, "GET", "/healthz", key=None))[1] == {"status": "ok"}
    assert (await ask(world, "GET", "/readyz", key=None))[0] == 200
    async with world.agent():
        text = (await ask(world, "GET", "/metrics"))[1].decode()
    assert "relay_agents 1.0" in text
    assert 'relay_http_requests_total{route="/readyz",status="200"} 1.0' in text


async def test_openapi_is_served_to_everybody(world: World) -> None:
    status, body, _ = await ask(world, "GET", "/openapi.json", key=None)
    assert (status, body["openapi"]) == (200, "3.1.0")
