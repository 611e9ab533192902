"""The way to the relay: a site's own certificate authority, a proxy with a password, the control socket, enrolment."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from agent import control, identity
from agent.config import parse
from agent.private import NotPrivate
from appliance import enrol
from protocol.codec import decode, encode
from protocol.enrol import EnrolAnswer, EnrolRequest, Token, check_proof, root_fingerprint
from protocol.errors import EnrolmentRejected
from protocol.inbox import JOURNAL_BEHIND
from protocol.messages import Kind
from protocol.signed import sign
from tests.support import protocol_world as w
from tests.support.agent_paths import ISSUER, make_authority, proxy
from tests.support.agent_relay_double import relay
from tests.support.agent_world import StepStage, agent, prepare

pytestmark = pytest.mark.e2e


def _stage(folder: Path) -> StepStage:
    return StepStage(folder / "effects", units=1)


async def test_tls_with_the_sites_own_authority_names_the_issuer(tmp_path: Path) -> None:
    ca_file, context = make_authority(tmp_path / "tls")
    async with relay(tls=context) as double:
        config = prepare(tmp_path, double.url, relay={"url": double.url, "ca_file": str(ca_file)})
        async with agent(config, _stage(tmp_path)) as app:
            await double.until(lambda: double.connected, "a connection")
            path = app.session.health.path
    assert double.url.startswith("https:")
    assert path is not None
    assert ISSUER in path.tls_issuer
    assert path.tls_version == "TLSv1.3"


async def test_an_agent_does_not_start_with_keys_that_others_may_read(tmp_path: Path) -> None:
    config = prepare(tmp_path, "http://127.0.0.1:9")
    key = config.state / identity.FOLDER / "device.key"
    key.chmod(0o644)
    with pytest.raises(NotPrivate, match=f"chmod 600 {key}"):
        async with agent(config, _stage(tmp_path)):
            pass


async def test_an_unknown_authority_is_no_relay(tmp_path: Path) -> None:
    _, context = make_authority(tmp_path / "tls")
    async with (
        relay(tls=context) as double,
        agent(prepare(tmp_path, double.url), _stage(tmp_path)) as app,
    ):
        await double.until(lambda: app.session.health.problem, "a problem")
        assert "certificate" in app.session.health.problem.lower()
        assert double.hellos == []


async def test_a_proxy_with_a_password_lets_the_agent_through(tmp_path: Path) -> None:
    secret = tmp_path / "proxy-credentials"
    secret.write_text("user:let me in\n")
    async with proxy() as between, relay() as double:
        settings = {"proxy": between.url, "proxy_credentials_file": str(secret)}
        async with agent(prepare(tmp_path, double.url, relay=settings), _stage(tmp_path)):
            order = double.line.upload()
            await double.push(order)
            assert (await double.result(order[0])).status == "succeeded"
    assert between.tunnels
    assert set(between.tunnels) == {double.url.removeprefix("http://")}


async def test_a_wrong_proxy_password_is_said_and_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "proxy-credentials"
    secret.write_text("user:hunter2\n")
    async with proxy() as between, relay() as double:
        settings = {"proxy": between.url, "proxy_credentials_file": str(secret)}
        async with agent(prepare(tmp_path, double.url, relay=settings), _stage(tmp_path)) as app:
            await double.until(lambda: app.session.health.problem, "a problem")
            assert "407" in app.session.health.problem
            assert "hunter2" not in app.session.health.problem
    assert between.refused
    assert double.hellos == []


async def test_the_control_socket_answers_status_jobs_and_sweep(tmp_path: Path) -> None:
    async with relay() as double:
        config = prepare(tmp_path, double.url)
        async with agent(config, _stage(tmp_path)) as app:
            order = double.line.upload()
            await double.push(order)
            await double.result(order[0])
            status = await control.ask(config.control_path, {"get": "status"})
            jobs = await control.ask(config.control_path, {"get": "jobs"})
            sweep = await control.ask(config.control_path, {"get": "sweep"})
            wrong = await control.ask(config.control_path, {"get": "secrets"})
            mode = _mode(config.control_path)
            assert app.orders.state.head.have == 1
    assert (status["channel"], status["appliance"], status["have"]) == ("proven", w.APPLIANCE, 1)
    assert status["counters"]["accepted"] == 1
    assert [job["state"] for job in jobs["jobs"]] == ["succeeded"]
    assert sweep == {"leftovers": []}
    assert "unknown request" in wrong["error"]
    assert mode == 0o600


@pytest.mark.parametrize("why", ["locked", "no signed time"])
async def test_nothing_is_swept_while_the_journal_may_be_an_older_copy(
    tmp_path: Path, why: str
) -> None:
    async with relay() as double:
        config = prepare(tmp_path, double.url)
        async with agent(config, _stage(tmp_path)) as app:
            await double.until(lambda: app.orders.trust.fresh, "signed time")
            if why == "locked":
                app.orders.settle(replace(app.orders.state, locked=JOURNAL_BEHIND))
            else:
                app.orders.trust.fresh = False
            answer = await control.ask(config.control_path, {"get": "sweep", "apply": True})
    assert "older copy" in answer["error"]
    assert "leftovers" not in answer


def _mode(path: str) -> int:
    return Path(path).stat().st_mode & 0o777


TOKEN = Token("token-1", b"s" * 32, root_fingerprint(w.ROOT.public))


@pytest.fixture
async def signer() -> AsyncIterator[web.AppRunner]:
    """A signer's answer to enrolments: checks the proof, signs the record."""

    async def answer(request: web.Request) -> web.Response:
        wanted = decode(await request.read(), EnrolRequest, limit=65536)
        try:
            check_proof(wanted, TOKEN.secret)
        except EnrolmentRejected as err:
            problem = json.dumps({"title": "enrol.rejected", "detail": str(err)})
            return web.Response(status=403, text=problem)
        record = w.record(
            id=wanted.name or "site-9", device_key=wanted.device_key, seal_key=wanted.seal_key
        )
        body = EnrolAnswer(
            v=1,
            root=w.ROOT.public,
            manifest=sign(Kind.MANIFEST, w.manifest(), w.ROOT),
            record=sign(Kind.RECORD, record, w.RECORD),
        )
        return web.Response(body=encode(body), content_type="application/msgpack")

    app = web.Application()
    app.router.add_post("/v1/enrolments", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner
    await runner.cleanup()


def _config(state: Path, runner: web.AppRunner) -> object:
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return parse({"state_dir": str(state), "relay": {"url": url}})


async def test_enrolment_makes_keys_and_keeps_the_signed_record(
    tmp_path: Path, signer: web.AppRunner
) -> None:
    config = _config(tmp_path, signer)
    me = await enrol.enrol(config, TOKEN, name="site-7")
    assert me.record.id == "site-7"
    loaded = identity.load(tmp_path / identity.FOLDER, machine_id=identity.read_machine_id())
    assert loaded.record == me.record
    with pytest.raises(enrol.AlreadyEnrolled):
        await enrol.enrol(config, TOKEN)


async def test_a_refused_enrolment_says_why_and_a_second_try_uses_the_same_keys(
    tmp_path: Path, signer: web.AppRunner
) -> None:
    config = _config(tmp_path, signer)
    wrong = Token(TOKEN.id, b"x" * 32, TOKEN.root_fingerprint)
    with pytest.raises(enrol.RelayRefused, match="proof does not belong"):
        await enrol.enrol(config, wrong)
    keys = identity.load_keys(tmp_path / identity.FOLDER)
    me = await enrol.enrol(config, TOKEN)
    assert me.record.device_key == keys.device.public


async def test_an_answer_of_another_control_plane_is_not_kept(
    tmp_path: Path, signer: web.AppRunner
) -> None:
    pinned = Token(TOKEN.id, TOKEN.secret, root_fingerprint(w.key_of("other root").public))
    with pytest.raises(EnrolmentRejected):
        await enrol.enrol(_config(tmp_path, signer), pinned)
    assert not (tmp_path / identity.FOLDER / "record").exists()


async def test_an_unreachable_relay_is_named(tmp_path: Path) -> None:
    config = parse({"state_dir": str(tmp_path), "relay": {"url": "http://127.0.0.1:1"}})
    with pytest.raises(enrol.RelayUnreachable, match=r"127\.0\.0\.1:1"):
        await enrol.enrol(config, TOKEN)
