"""How many enrolments one address may ask for, before any signer hears of them."""

from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from relay.api.auth import Caller
from relay.api.passing import enrol
from relay.app import build
from relay.config import Limits
from relay.errors import RateLimited, RelayError
from relay.store.memory import MemoryStore
from tests.support.relay_world import config

NOBODY = Caller("", "", "reader")


async def test_one_ipv6_network_is_one_address(tmp_path: Path) -> None:
    limits = Limits(enrolments_per_min=2)
    api = build(config(tmp_path, limits=limits), MemoryStore(), boot=lambda: 0.0).api
    request = make_mocked_request("POST", "/v1/enrolments")
    refused = []
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"):
        with pytest.raises(RelayError) as error:  # no signer is attached
            await enrol(api, NOBODY, request.clone(remote=address))
        refused.append(isinstance(error.value, RateLimited))
    assert refused == [False, False, True, False]
