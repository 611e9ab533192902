"""No password of a share in anything that anybody writes down: logs at their loudest, errors, reprs, tracebacks."""

import base64
import logging
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.secrets import Secret
from agent.shares.smb.policy import AuthKind
from agent.shares.smb.ref import SmbCredential
from tests.support.samba import IMPATIENT, SIGNED, Rig, samba_rig
from tests.support.smb_proxy import TO_CLIENT, SmbProxy

pytestmark = pytest.mark.interop


def forms(password: str) -> list[str]:
    """How a password may look in a text."""
    wide = password.encode("utf-16-le")
    return [
        password,
        wide.hex(),
        password.encode().hex(),
        base64.b64encode(password.encode()).decode().rstrip("="),
        repr(wide)[2:-1],
    ]


def use(rig: Rig, credential: SmbCredential, journal: Path, auth: AuthKind) -> list[str]:
    """Do what a job does, with every end that it can have; return what was said."""
    said: list[str] = [repr(credential), str(credential)]

    def cut(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_CLIENT and proxy.to_client > 3000:
            raise ConnectionResetError
        return [frame]

    for policy in (replace(IMPATIENT, auth=auth, reconnect_for=0.2), replace(SIGNED, auth=auth)):
        with SmbProxy(rig.server.port, cut) as proxy:
            for port in (None, proxy.port, 1):
                hasty = replace(policy, reconnect_for=0.1)
                share = rig.share(policy=hasty, credential=credential, port=port)
                said.append(repr(vars(share)))
                try:
                    with share.create("x.raw", job="j", journal=journal, replace=True) as file:
                        file.write(0, b"x")
                        file.commit()
                    share.open_read("missing")
                except AgentError as err:
                    said += [repr(err), str(err), repr(err.fields)]
                    said.append("".join(traceback.format_exception(err)))
    return said


@pytest.mark.parametrize("auth", [AuthKind.NEGOTIATE, AuthKind.NTLM], ids=lambda a: a.value)
@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_a_password_is_in_nothing_that_is_written_down(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    auth: AuthKind,
    *,
    right: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    with samba_rig() as rig:
        password = rig.server.user.password if right else "Wrong-one-9-Zq"
        name = rig.server.user.name
        credential = SmbCredential(name, Secret(password))
        said = use(rig, credential, tmp_path / "journal", auth)
    out, err = capfd.readouterr()
    everything = "\n".join([*said, caplog.text, out, err])
    assert name in everything  # So it would have been seen.
    for form in forms(password):
        assert form not in everything
