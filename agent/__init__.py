"""The asyncio agent on the appliance: session, journal, runner, stages and the only vendor SDKs."""
