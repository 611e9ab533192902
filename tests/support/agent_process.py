"""`python -m tests.support.agent_process CONFIG EFFECTS DIE UNITS`: an agent that kills itself where a test says.

DIE is `before:K` or `after:K` (its K-th transaction that changed something), or empty.
"""

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


def main() -> None:
    """Run the agent."""
    file, effects, die, units = sys.argv[1:5]
    if die:
        arm(die)
    stage = StepStage(Path(effects), units=int(units))
    app.run(config.load(Path(file)).config, stages=loader(stage))


if __name__ == "__main__":
    main()
