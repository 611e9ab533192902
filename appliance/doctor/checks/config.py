"""Check `config`: the configuration files can be read and make sense. Says which they are."""

from collections.abc import AsyncIterator

from agent.config import DEFAULT_ORIGIN, ConfigError
from appliance.doctor.base import Check, Context, Finding, failed, passed

TITLE = "configuration"


async def run(context: Context) -> AsyncIterator[Finding]:
    """Report how reading the configuration went."""
    loaded = context.loaded
    if isinstance(loaded, ConfigError):
        yield failed("config", TITLE, str(loaded), fix=loaded.fix, code=loaded.code)
        return
    files = sorted(set(loaded.origins.values()) - {DEFAULT_ORIGIN})
    detail = f"read {', '.join(files)}" if files else "no files; every value is a default"
    yield passed("config", TITLE, detail, files=files, relay=loaded.config.relay.url)


CHECK = Check("config", "configuration files can be read and make sense", run)
