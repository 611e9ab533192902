"""Enrolment of this machine: makes its keys, proves them with the token, keeps the signer's answer. Starts no agent.

Keys are durable before the first byte is sent, and the same token and keys get the same record again, so an enrolment
cut off anywhere is simply run again (PROTOCOL 7). The relay passes everything on unread.
"""

import os

import aiohttp
import msgspec

from agent import identity
from agent.bounded import read_up_to
from agent.config import AgentConfig, RelayConfig
from agent.dial import tls_context
from agent.errors import NeedsOperator, Permanent, Retryable
from agent.identity import Identity
from agent.proxy import read_proxy_credentials
from protocol.codec import decode, encode
from protocol.enrol import EnrolAnswer, EnrolRequest, Token, proof
from protocol.errors import FrameError
from protocol.messages import MAX_MANIFEST

PATH = "/v1/enrolments"
MAX_ANSWER = MAX_MANIFEST + 128 * 1024
TIMEOUT_S = 60.0
NONCE_BYTES = 16


class AlreadyEnrolled(NeedsOperator):
    """The state folder holds an enrolled appliance."""

    code = "enrol.already-enrolled"
    exit_code = 73
    fix = "Use another state_dir for another appliance; this one stays who it is."


class RelayUnreachable(Retryable):
    """The relay could not be asked."""

    code = "enrol.unreachable"
    exit_code = 69
    fix = "Check relay URL, proxy and ca_file; then run the same command with the same token again."


class RelayRefused(Permanent):
    """The relay or the signer refused; the message is theirs."""

    code = "enrol.refused"
    exit_code = 77
    http_status = 403
    fix = "Make a new token with `imageport token new` and enrol again."


async def enrol(config: AgentConfig, token: Token, *, name: str | None = None) -> Identity:
    """Enrol this machine at `config.relay`.

    Args:
        config: Where the relay and the state folder are.
        token: Made by the signer.
        name: The id that the appliance would like to have.

    Raises:
        AlreadyEnrolled, RelayUnreachable, RelayRefused; EnrolmentRejected or another ProtocolError if the answer is
        not the signer's.
    """
    folder = config.state / identity.FOLDER
    if (folder / "record").exists():
        raise AlreadyEnrolled(f"{folder} holds an enrolled appliance", path=str(folder))
    keys = identity.make_keys(folder, machine_id=identity.read_machine_id())
    nonce = os.urandom(NONCE_BYTES)
    request = EnrolRequest(
        v=1,
        token=token.id,
        device_key=keys.device.public,
        seal_key=keys.seal.public,
        nonce=nonce,
        mac=proof(token.id, token.secret, keys.device.public, keys.seal.public, nonce),
        name=name,
    )
    raw = await _post(config.relay, encode(request))
    answer = decode(raw, EnrolAnswer, limit=MAX_ANSWER)
    return identity.store_answer(folder, answer, fingerprint=token.root_fingerprint)


async def _post(relay: RelayConfig, body: bytes) -> bytes:
    url = relay.url.replace("ws", "http", 1) if relay.url.startswith("ws") else relay.url
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as http,
            http.post(
                url.rstrip("/") + PATH,
                data=body,
                headers={"Content-Type": "application/msgpack"},
                ssl=tls_context(relay) if url.startswith("https:") else True,
                proxy=relay.proxy,
                proxy_auth=_proxy_auth(relay),
                allow_redirects=False,
            ) as answer,
        ):
            data = await read_up_to(answer.content, MAX_ANSWER + 1)
            if answer.status != 200:
                raise _refused(answer.status, data)
            return data
    except (aiohttp.ClientError, OSError, TimeoutError) as err:
        msg = f"{url}: {err or type(err).__name__}"
        raise RelayUnreachable(msg, url=url) from err


def _proxy_auth(relay: RelayConfig) -> aiohttp.BasicAuth | None:
    if relay.proxy_credentials_file is None:
        return None
    return aiohttp.BasicAuth(*read_proxy_credentials(relay.proxy_credentials_file))


def _refused(status: int, body: bytes) -> RelayRefused | RelayUnreachable:
    message = _problem(body) or f"HTTP {status}"
    if status in {429, 502, 503, 504}:
        return RelayUnreachable(f"the relay answered {status}: {message}", status=status)
    return RelayRefused(f"the relay answered {status}: {message}", status=status)


def _problem(body: bytes) -> str:
    """Return the readable part of an RFC 9457 problem, which may come as JSON or as msgpack."""
    for read in (msgspec.json.decode, lambda raw: decode(raw, dict, limit=MAX_ANSWER)):
        try:
            plain = read(body)
        except (msgspec.DecodeError, FrameError, UnicodeDecodeError):
            continue
        if isinstance(plain, dict):
            return str(plain.get("detail") or plain.get("title") or plain.get("message") or "")[
                :500
            ]
    return ""
