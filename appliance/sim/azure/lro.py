"""Long-running operations of the ARM plane: started, due after some seconds, settled whether anybody polls or not."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from appliance.sim.call import Refusal


@dataclass(slots=True)
class Operation:
    """One operation; `work` runs once, when it is due, and gives the body of the final answer."""

    number: str
    started: float
    due: float
    work: Callable[[], Any]
    status: str = "InProgress"
    result: Any = None
    failure: Refusal | None = None


class Operations:
    """All operations since the start."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._all: dict[str, Operation] = {}
        self._ids = count(1)

    def start(self, work: Callable[[], Any], now: float) -> Operation:
        """Begin an operation that ends `seconds` from now."""
        number = f"00000000-0000-4000-8000-{next(self._ids):012x}"
        operation = Operation(number, now, now + self._seconds, work)
        self._all[number] = operation
        return operation

    def settle(self, now: float) -> None:
        """End what is due; called before anything looks at a resource."""
        for operation in self._all.values():
            if operation.status == "InProgress" and operation.due <= now:
                _run(operation)

    def get(self, number: str) -> Operation:
        """Return an operation.

        Raises:
            Refusal: 404, also for those of before a restart.
        """
        operation = self._all.get(number)
        if operation is None:
            raise Refusal(404, "OperationNotFound", f"The operation {number} was not found.")
        return operation


def _run(operation: Operation) -> None:
    try:
        operation.result = operation.work()
        operation.status = "Succeeded"
    except Refusal as refusal:
        operation.failure = refusal
        operation.status = "Failed"
