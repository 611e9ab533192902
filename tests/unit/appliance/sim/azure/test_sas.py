"""SAS: strings to sign by version, window, scope, address, protocol, policies; everything else refused."""

from urllib.parse import urlencode

import pytest

from appliance.sim.azure.sas import (
    Resource,
    SasVerifier,
    account_text,
    service_sas,
    service_text,
    sign,
)
from appliance.sim.azure.state import Policy
from appliance.sim.call import Refusal
from tests.support.simcalls import NOW, call

KEY = "AAECAwQFBgcICQoLDA0ODw=="
BLOB = Resource("blob", "cont", "disk.vhd")
FIELDS = {"sr": "b", "sp": "rw", "se": "2023-11-15T00:00:00Z"}
CANONICAL = "/blob/acc/cont/disk.vhd"


def _granted(
    query: str,
    resource: Resource = BLOB,
    *,
    policies: dict[str, Policy] | None = None,
    voided: frozenset[str] = frozenset(),
    **how: str,
) -> str:
    verifier = SasVerifier("acc", KEY, set(voided))
    return verifier.verify(
        call("GET", f"/acc/cont/disk.vhd?{query}", **how), resource, policies or {}
    )


def _refused(query: str, resource: Resource = BLOB, **how: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        _granted(query, resource, **how)
    return caught.value


def _account(**fields: str) -> str:
    query = {"sv": "2021-12-02", "ss": "b", "srt": "co", "sp": "rwl", "se": "2023-11-15"} | fields
    return urlencode(query | {"sig": sign(KEY, account_text(query, "acc"))})


@pytest.mark.parametrize(
    ("version", "fields"),
    [("2015-04-05", 13), ("2018-11-09", 15), ("2020-12-06", 16), ("2026-10-06", 16)],
)
def test_string_to_sign_has_the_fields_of_its_version(version: str, fields: int) -> None:
    text = service_text({"sv": version, "sp": "r"}, CANONICAL)
    assert len(text.split("\n")) == fields
    assert text.split("\n")[3] == CANONICAL


def test_service_sas_grants_its_permissions() -> None:
    assert _granted(service_sas(KEY, CANONICAL, FIELDS)) == "rw"


def test_container_sas_covers_its_blobs() -> None:
    assert _granted(service_sas(KEY, "/blob/acc/cont", FIELDS | {"sr": "c"})) == "rw"


def test_account_sas_grants_its_permissions() -> None:
    assert _granted(_account()) == "rwl"


def test_policy_holds_permissions_and_expiry() -> None:
    query = service_sas(KEY, CANONICAL, {"sr": "b", "si": "one", "sv": "2018-03-28"})
    assert _granted(query, policies={"one": Policy("w", NOW + 1)}) == "w"
    assert "does not exist" in _refused(query).detail
    with pytest.raises(Refusal, match="authenticate"):
        _granted(query, policies={"one": Policy("w", NOW)})


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        (service_sas(KEY, CANONICAL, FIELDS | {"se": "2023-11-14"}), 403, "AuthenticationFailed"),
        (
            service_sas(KEY, CANONICAL, FIELDS | {"st": "2023-11-14T22:14Z"}),
            403,
            "AuthenticationFailed",
        ),
        (service_sas(KEY, CANONICAL, {"sr": "b", "sp": "r"}), 403, "AuthenticationFailed"),
        (service_sas(KEY, CANONICAL, FIELDS | {"se": "soon"}), 403, "AuthenticationFailed"),
        (service_sas(KEY, CANONICAL, FIELDS | {"sv": "2012-02-12"}), 403, "AuthenticationFailed"),
        (service_sas(KEY, "/blob/acc/cont/other", FIELDS), 403, "AuthenticationFailed"),
        (service_sas("b3RoZXI=", CANONICAL, FIELDS), 403, "AuthenticationFailed"),
        (service_sas(KEY, CANONICAL, FIELDS | {"sr": "d"}), 403, "AuthenticationFailed"),
        (service_sas(KEY, CANONICAL, FIELDS) + "&skoid=1", 403, "AuthenticationFailed"),
        (
            service_sas(KEY, CANONICAL, FIELDS | {"spr": "https"}),
            403,
            "AuthorizationProtocolMismatch",
        ),
        (
            service_sas(KEY, CANONICAL, FIELDS | {"sip": "10.0.0.1-10.0.0.9"}),
            403,
            "AuthorizationSourceIPMismatch",
        ),
        (_account(ss="q"), 403, "AuthorizationServiceMismatch"),
        (_account(srt="s"), 403, "AuthorizationResourceTypeMismatch"),
    ],
    ids=[
        "expired",
        "not-yet",
        "no-expiry",
        "no-time",
        "old-version",
        "other-blob",
        "other-key",
        "directory",
        "user-delegation",
        "https-only",
        "other-address",
        "other-service",
        "other-type",
    ],
)
def test_sas_that_does_not_fit(query: str, status: int, code: str) -> None:
    refusal = _refused(query)
    assert (refusal.status, refusal.code) == (status, code)


def test_tampered_permission_is_refused() -> None:
    assert (
        "Signature did not match"
        in _refused(
            service_sas(KEY, CANONICAL, FIELDS | {"sp": "r"}).replace("sp=r&", "sp=rw&")
        ).detail
    )


def test_address_in_the_range_and_https_pass() -> None:
    fields = FIELDS | {"sip": "127.0.0.0-127.0.0.9", "spr": "https"}
    assert _granted(service_sas(KEY, CANONICAL, fields), scheme="https") == "rw"


def test_voided_signature_counts_as_expired() -> None:
    query = service_sas(KEY, CANONICAL, FIELDS)
    verifier = SasVerifier("acc", KEY, set())
    verifier.verify(call("GET", f"/acc/cont/disk.vhd?{query}"), BLOB, {})
    assert "time frame" in _refused(query, voided=frozenset(verifier.known)).detail
