"""Asks the running agent over its control socket, for `status` and `sweep`. Blocking; one question a call."""

import asyncio
from collections.abc import Mapping
from typing import Any

from agent import control
from agent.config import AgentConfig
from agent.errors import NeedsOperator

TIMEOUT_S = 30.0


class AgentNotRunning(NeedsOperator):
    """Nobody answers on the control socket."""

    code = "cli.agent-not-running"
    exit_code = 69
    fix = "Start it (`systemctl start imageport-agent`, or `imageport agent run`); the socket is root's."


class AgentRefused(NeedsOperator):
    """The agent answered that it cannot do that now."""

    code = "cli.agent-refused"
    exit_code = 75
    fix = "See `imageport status`."


def ask_agent(config: AgentConfig, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the agent's answer.

    Raises:
        AgentNotRunning, AgentRefused.
    """

    async def ask() -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT_S):
            return await control.ask(config.control_path, request)

    try:
        answer = asyncio.run(ask())
    except (OSError, TimeoutError) as err:
        msg = f"no agent answers on {config.control_path}"
        raise AgentNotRunning(msg, path=config.control_path) from err
    if "error" in answer:
        raise AgentRefused(str(answer["error"]))
    return answer
