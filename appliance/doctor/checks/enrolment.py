"""Check `enrolment`: the identity is whole, and what the control plane signed about it verifies. Changes nothing."""

from collections.abc import AsyncIterator

from agent import identity
from agent.config import AgentConfig
from agent.errors import AgentError
from agent.identity import Identity, NotEnrolled
from appliance.doctor.base import Check, Context, Finding, failed, passed, skipped
from appliance.doctor.threads import in_thread
from protocol.errors import ProtocolError

TITLE = "enrolment"


async def run(context: Context) -> AsyncIterator[Finding]:
    """Read and verify the identity."""
    config = context.config
    yield await in_thread(lambda: _identity(config))


def _identity(config: AgentConfig) -> Finding:
    folder = config.state / identity.FOLDER
    try:
        me = identity.load(folder, machine_id=identity.read_machine_id())
        record = me.ring.open_record((folder / "record").read_bytes())
    except NotEnrolled as err:
        return skipped("enrolment", TITLE, f"not enrolled yet: {err}. {err.fix}", enrolled=False)
    except PermissionError:
        return skipped(
            "enrolment", TITLE, f"{folder} belongs to another user: run the doctor as root"
        )
    except (AgentError, ProtocolError) as err:
        return failed("enrolment", TITLE, str(err), fix=err.fix, code=err.code)
    if record.seal_key not in {seal.public for seal in me.keys.seals}:
        return failed(
            "enrolment",
            TITLE,
            "the record names a seal key that is not here: secrets in orders could not be opened",
            fix="Restore the identity folder from its backup, or enrol anew as another appliance.",
        )
    return _whole(me)


def _whole(me: Identity) -> Finding:
    record, serial = me.record, me.ring.manifest.serial
    return passed(
        "enrolment",
        TITLE,
        f"{record.tenant}/{record.id}; record and key manifest {serial} verify",
        enrolled=True,
        tenant=record.tenant,
        appliance=record.id,
        manifest=serial,
        seal_keys=[seal.kid.hex() for seal in me.keys.seals],
    )


CHECK = Check("enrolment", "identity is whole and its record verifies", run, needs=("config",))
