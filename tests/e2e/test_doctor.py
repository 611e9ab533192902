"""The doctor against real ways: relay, TLS, proxies, Samba, a clock that is off, files that are damaged."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.config import Loaded, parse
from agent.identity import FOLDER
from agent.journal.store import FILE
from appliance import bundle
from appliance.cli.main import main
from appliance.doctor.base import Context, Finding, Options, Status
from appliance.doctor.registry import choose
from appliance.doctor.run import examine
from tests.support.agent_paths import ISSUER, make_authority, proxy
from tests.support.agent_relay_double import enrol, relay
from tests.support.agent_world import StepStage, agent, prepare, settings

pytestmark = pytest.mark.e2e

_NOW = 1_000_000_000.0  # 2001: far from the real clock, whenever this runs


async def _examined(
    *names: str, options: Options | None = None, wall: float = _NOW, **config: Any
) -> dict[str, Finding]:
    context = Context(Loaded(parse(config), {}), options or Options(), lambda: wall)
    found = await examine(choose(names), context, timeout_s=60)
    return {finding.id: finding for finding in found}


# --- relay ------------------------------------------------------------------------------------------------


async def test_a_healthy_path_to_the_relay_passes_and_names_the_tls_issuer(tmp_path: Path) -> None:
    ca_file, context = make_authority(tmp_path / "tls")
    async with relay(tls=context) as double:
        found = await _examined("relay", relay={"url": double.url, "ca_file": str(ca_file)})
        assert double.hellos == []  # the doctor proves nothing to anybody
    assert {name: f.status for name, f in found.items() if name.startswith("relay")} == {
        "relay.reach": Status.PASS,
        "relay.tls": Status.PASS,
        "relay.channel": Status.PASS,
    }
    assert found["relay.tls"].evidence["tls_version"] == "TLSv1.3"
    assert ISSUER in found["relay.tls"].evidence["tls_issuer"]
    assert found["relay.channel"].evidence["date"] > 0


async def test_an_untrusted_certificate_fails_and_says_who_issued_it(tmp_path: Path) -> None:
    _, context = make_authority(tmp_path / "tls")
    async with relay(tls=context) as double:
        found = await _examined("relay", relay={"url": double.url})
    tls = found["relay.tls"]
    assert tls.status is Status.FAIL
    assert ISSUER in tls.detail
    assert "ca_file" in tls.fix
    assert "relay.channel" not in found


async def test_a_name_without_an_address_fails_at_dns() -> None:
    found = await _examined("relay", relay={"url": "https://relay.invalid"})
    assert found["relay.reach"].status is Status.FAIL
    assert found["relay.reach"].evidence["step"] == "dns"


async def test_a_closed_port_fails_at_tcp() -> None:
    found = await _examined("relay", relay={"url": f"http://127.0.0.1:{_closed_port()}"})
    assert found["relay.reach"].evidence["step"] == "tcp"
    assert "Connection refused" in found["relay.reach"].detail


async def test_a_web_server_that_is_no_relay_fails_at_the_channel() -> None:
    async with _web() as url:
        found = await _examined("relay", relay={"url": url})
    assert found["relay.reach"].status is Status.PASS
    assert found["relay.channel"].status is Status.FAIL
    assert "404" in found["relay.channel"].detail


async def test_a_relay_that_never_answers_ends_with_a_finding_in_time() -> None:
    async with _silent() as url:
        context = Context(Loaded(parse({"relay": {"url": url}}), {}), Options(), lambda: _NOW)
        async with asyncio.timeout(60):
            found = await examine(choose(["relay"]), context, timeout_s=1.0)
    assert found[-1].status is Status.FAIL
    assert "time limit" in found[-1].detail


# --- proxies ----------------------------------------------------------------------------------------------


async def test_the_way_through_a_proxy_with_a_password(tmp_path: Path) -> None:
    secret = _file(tmp_path / "credentials", "user:let me in\n")
    async with proxy() as between, relay() as double:
        way = {"url": double.url, "proxy": between.url, "proxy_credentials_file": secret}
        found = await _examined("relay", "proxy", relay=way)
    assert found["proxy.relay"].status is Status.PASS
    assert found["relay.channel"].status is Status.PASS
    assert set(between.tunnels) == {double.url.removeprefix("http://")}
    assert between.url.removeprefix("http://") in found["relay.reach"].detail


async def test_a_refused_password_is_said_and_not_shown(tmp_path: Path) -> None:
    secret = _file(tmp_path / "credentials", "user:hunter2\n")
    async with proxy() as between, relay() as double:
        way = {"url": double.url, "proxy": between.url, "proxy_credentials_file": secret}
        found = await _examined("relay", "proxy", relay=way)
    for name in ("proxy.relay", "relay.reach"):
        assert found[name].status is Status.FAIL
        assert "407" in found[name].detail
        assert found[name].evidence["step"] == "proxy-auth"
    assert "hunter2" not in repr(found)


# --- clock ------------------------------------------------------------------------------------------------


async def test_the_clock_is_compared_with_the_relays_date_and_only_warned_about() -> None:
    async with relay() as double:
        seen = await _examined("clock", relay={"url": double.url})
        date = seen["relay.channel"].evidence["date"]
        good = await _examined("clock", wall=date + 5, relay={"url": double.url})
        off = await _examined("clock", wall=date - 7200, relay={"url": double.url})
    assert good["clock.relay"].status is Status.PASS
    assert off["clock.relay"].status is Status.WARN
    assert "behind the relay's Date" in off["clock.relay"].detail
    assert off["clock.relay"].evidence["code"] == "appliance.clock-off"


# --- what lies on this machine ----------------------------------------------------------------------------


async def test_an_enrolled_appliance_with_a_running_agent_is_well(tmp_path: Path) -> None:
    async with relay() as double:
        config = prepare(tmp_path, double.url)
        async with agent(config, StepStage(tmp_path / "effects", units=1)):
            order = double.line.upload()
            await double.push(order)
            await double.result(order[0])
            plain = settings(tmp_path / "state", double.url)
            _close_to_others(tmp_path / "state")
            found = await _examined(
                "enrolment", "journal", "host", "share", **{**plain, "policy": {"endpoints": []}}
            )
    assert [name for name, f in found.items() if f.status is Status.FAIL] == []
    assert found["enrolment"].status is Status.PASS
    assert found["journal"].status is Status.PASS
    assert found["journal"].evidence["unfinished_jobs"] == 0
    assert found["journal"].evidence["have"] == 1
    assert found["journal"].evidence["floor_ms"] > 0
    assert found["share.images"].status is Status.PASS


async def test_a_bundle_beside_a_running_agent_has_its_status_and_its_jobs(tmp_path: Path) -> None:
    async with relay() as double:
        config = prepare(tmp_path, double.url)
        async with agent(config, StepStage(tmp_path / "effects", units=1)):
            order = double.line.upload()
            await double.push(order)
            await double.result(order[0])
            request = bundle.Request(Loaded(config, {}), (), lambda: _NOW)
            collected = await bundle.collect(request)
    assert collected.missing == {}
    assert (
        json.loads(collected.files["status.json"])["have"] == 1
    )  # the channel may be away for a moment under load
    (job,) = json.loads(collected.files["jobs.json"])
    assert (job["op"], job["state"]) == ("upload", "succeeded")
    assert job["id"] == order[0].id.hex()
    assert json.loads(collected.files["journal.json"])["have"] == 1
    whole = b"".join(collected.files.values())
    assert order[1].hex().encode() not in whole  # the envelope


async def test_a_damaged_journal_is_found(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    found = await _examined("journal", state_dir=str(tmp_path))
    assert found["journal"].status is Status.FAIL
    assert "backup" in found["journal"].fix


async def test_a_damaged_record_is_found(tmp_path: Path) -> None:
    enrol(tmp_path)
    record = tmp_path / FOLDER / "record"
    data = bytearray(record.read_bytes())
    data[-1] ^= 1
    record.write_bytes(data)
    found = await _examined("enrolment", state_dir=str(tmp_path))
    assert found["enrolment"].status is Status.FAIL


async def test_another_seal_key_than_the_records_is_found(tmp_path: Path) -> None:
    enrol(tmp_path)
    (seal,) = (tmp_path / FOLDER).glob("seal-*.key")
    seal.unlink()
    (tmp_path / FOLDER / "seal-00.key").write_bytes(b"x" * 32)
    found = await _examined("enrolment", state_dir=str(tmp_path))
    assert found["enrolment"].status is Status.FAIL
    assert "seal key" in found["enrolment"].detail


async def test_a_folder_that_others_can_look_into_is_only_warned_about(tmp_path: Path) -> None:
    enrol(tmp_path)
    _close_to_others(tmp_path)
    assert (await _examined("host", state_dir=str(tmp_path)))["host.files"].status is Status.PASS
    _chmod(tmp_path, 0o755)
    found = await _examined("host", state_dir=str(tmp_path))
    assert found["host.files"].status is Status.WARN
    assert found["host.files"].fix == f"chmod go-rwx {tmp_path}"


async def test_keys_that_others_can_read_are_found_with_the_command_that_mends_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    key = folder / "device.key"
    key.write_bytes(b"k" * 32)
    _close_to_others(tmp_path)
    key.chmod(0o644)
    found = await _examined("host", state_dir=str(tmp_path))
    assert found["host.files"].status is Status.FAIL
    assert found["host.files"].fix == f"chmod go-rwx {key}"


async def test_files_of_two_users_are_found_with_the_chown(tmp_path: Path) -> None:
    enrol(tmp_path)
    _close_to_others(tmp_path)
    if os.geteuid() != 0:  # only root can give a file away
        return
    os.chown(tmp_path / FOLDER / "device.key", 12345, -1)
    found = (await _examined("host", state_dir=str(tmp_path)))["host.files"]
    assert found.status is Status.FAIL
    assert "12345" in found.detail
    assert found.fix.startswith("chown -R")


# --- shares and targets -----------------------------------------------------------------------------------


async def test_a_missing_folder_is_found(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    found = await _examined(
        "share", "target", shares={"local": {"a": gone}}, targets={"local": {"b": gone}},
        policy={"endpoints": []},
    )  # fmt: skip
    assert found["share.a"].status is Status.FAIL
    assert found["target.b"].status is Status.FAIL


async def test_a_target_is_reached_and_its_clock_compared() -> None:
    async with _web() as url:
        first = await _examined("target", policy={"endpoints": [url, "https://*.example"]})
        (reached,) = (f for name, f in first.items() if name.startswith("target"))
        now = _NOW - reached.evidence["ahead_s"]
        good = await _examined("target", wall=now, policy={"endpoints": [url]})
    assert reached.status is Status.WARN  # the clock of this test stands still
    assert good["target.127.0.0.1"].status is Status.PASS
    assert good["target.127.0.0.1"].evidence["status"] == 404


async def test_a_jobs_targets_are_tried_and_none_of_the_policys() -> None:
    async with _web() as url:
        options = Options(targets=(url,), of_job=True)
        found = await _examined(
            "target", options=options, policy={"endpoints": ["https://x.example"]}
        )
    assert [name for name in found if name.startswith("target")] == ["target.127.0.0.1"]


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_works_before_enrolment_and_answers_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        f'state_dir = "{tmp_path / "state"}"\n[policy]\nendpoints = []\n[relay]\n'
        f'url = "http://127.0.0.1:{_closed_port()}"\n'
    )
    assert main(["doctor", "--config", str(file), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["ok"]) == ("doctor/1", False)
    failed = [f["id"] for f in answer["findings"] if f["status"] == "fail"]
    assert failed == ["relay.reach"]
    keys = {"id", "title", "status", "detail", "fix", "evidence", "seconds"}
    assert all(set(finding) == keys for finding in answer["findings"])


def test_skips_and_warnings_are_allowed_unless_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'state_dir = "{tmp_path}"\n')
    assert main(["doctor", "enrolment", "--config", str(file), "--strict"]) == 0
    assert "[skip] enrolment" in capsys.readouterr().out


def test_a_bad_configuration_fails_its_check_and_skips_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('relay = "nowhere"\n')
    assert main(["doctor", "--config", str(file), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings[0]["status"] == "fail"
    assert {f["status"] for f in findings[1:]} == {"skip"}


@pytest.mark.parametrize(
    "arguments",
    [["colour"], ["--timeout", "0"], ["--share", "smb://a/b"], ["--target", "ftp://a"]],
    ids=["check", "timeout", "share", "target"],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert main(["doctor", *arguments]) == 2


def _file(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def _chmod(path: Path, mode: int) -> None:
    path.chmod(mode)


def _close_to_others(state: Path) -> None:
    for path in (state, state / FOLDER, *(state / FOLDER).iterdir()):
        path.chmod(path.stat().st_mode & ~0o077)


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@asynccontextmanager
async def _web() -> AsyncIterator[str]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def _silent() -> AsyncIterator[str]:
    """A server that takes connections and never says a word."""

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
