"""`python -m tests.support.agent_process CONFIG EFFECTS DIE UNITS`: an agent that kills itself where a test says.

DIE is `before:K` or `after:K` (its K-th transaction that changed something), `unit` (in the first unit of work), `hold`
(do not die, but never get beyond it), or empty.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path

from agent import app, config
from agent.journal import writer
from tests.support.agent_world import StepStage, loader


def arm(die: str) -> None:
    """Kill this process right before or right after its K-th writing COMMIT."""
    when, _, number = die.partition(":")
    left = [int(number)]
    transaction = writer.Writer._transaction

    def counted(self: writer.Writer, batch: list[writer._Work]) -> sqlite3.Error | None:
        conn = self._conn
        before = conn.total_changes
        if when == "after":
            error = transaction(self, batch)
            if conn.total_changes > before:
                _tick(left)
            return error

        # a marker that runs last inside the transaction: everything is written, nothing is committed
        def last(inner: sqlite3.Connection) -> None:
            if inner.total_changes > before:
                _tick(left)

        work = writer._Work(last, True, batch[0].loop, batch[0].loop.create_future())
        return transaction(self, [*batch, work])

    writer.Writer._transaction = counted  # type: ignore[method-assign]


def _tick(left: list[int]) -> None:
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


async def _die(_unit: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _hold(_unit: int) -> None:
    await asyncio.get_running_loop().create_future()


GATES = {"unit": _die, "hold": _hold}


def main() -> None:
    """Run the agent."""
    file, effects, die, units = sys.argv[1:5]
    if ":" in die:
        arm(die)
    stage = StepStage(Path(effects), units=int(units), gate=GATES.get(die))
    app.run(config.parse(json.loads(Path(file).read_text())), stages=loader(stage))


if __name__ == "__main__":
    main()
