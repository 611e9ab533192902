"""Which of the actions that an upload needs a principal's role assignments grant (Azure RBAC)."""

import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from agent.retry import Retrier, RetryPolicy
from agent.targets.azure.arm import MAX_PAGES, ArmDisks
from agent.targets.errors import TargetRefused

READ, WRITE, DELETE = (f"Microsoft.Compute/disks/{one}" for one in ("read", "write", "delete"))
HOST = "https://management.azure.com"


class Pages:
    """A session that answers with one page after the other, the last of them for ever."""

    def __init__(self, *pages: dict[str, object]) -> None:
        self.pages, self.asked = pages, []

    @asynccontextmanager
    async def request(self, method, url, **_rest):
        body = self.pages[min(len(self.asked), len(self.pages) - 1)]
        self.asked.append((method, url))
        left = [json.dumps(body).encode(), b""]

        async def read(_most: int) -> bytes:
            return left.pop(0)

        yield SimpleNamespace(status=200, headers={}, content=SimpleNamespace(read=read))


class Tokens:
    async def token(self, _scope: str) -> str:
        return "token"


def arm(session: Pages) -> ArmDisks:
    retrier = Retrier(policy=RetryPolicy(patience_s=0), now=lambda: 0.0, random=lambda: 0.0)
    group = "/subscriptions/s/resourceGroups/g"
    return ArmDisks(session, Tokens(), HOST, HOST, group, retrier)


def role(actions: list[str], *, but: list[str] | None = None) -> dict[str, list[str]]:
    return {"actions": actions, "notActions": but or []}


@pytest.mark.parametrize(
    ("roles", "lacking"),
    [
        ([role(["*"])], ()),
        ([role(["Microsoft.Compute/*"])], ()),
        ([role(["microsoft.compute/DISKS/*"])], ()),  # Azure compares without case
        ([role(["*/read"])], (WRITE, DELETE)),
        ([role(["*"], but=[DELETE])], (DELETE,)),
        ([role(["*"], but=[DELETE.upper()])], (DELETE,)),
        (
            [role(["*"], but=["*/delete"]), role([DELETE])],
            (),
        ),  # what one role leaves out another may give
        ([role([READ]), role([WRITE])], (DELETE,)),
        ([role(["Microsoft.Storage/*"])], (READ, WRITE, DELETE)),
        ([{}, "garbage", None, {"actions": None}], (READ, WRITE, DELETE)),
        ([], (READ, WRITE, DELETE)),
    ],
)
async def test_what_the_roles_do_not_grant_is_lacking(roles, lacking) -> None:
    assert await arm(Pages({"value": roles})).lacking((READ, WRITE, DELETE)) == lacking


async def test_roles_on_a_later_page_count() -> None:
    following = f"{HOST}/subscriptions/s/more?page=2"
    session = Pages({"value": [role([READ])], "nextLink": following}, {"value": [role([WRITE])]})
    assert await arm(session).lacking((READ, WRITE)) == ()
    assert session.asked[1] == ("GET", following)


async def test_a_page_elsewhere_gets_no_token() -> None:
    session = Pages({"value": [], "nextLink": "https://evil.example/more"})
    with pytest.raises(TargetRefused, match=r"evil\.example"):
        await arm(session).lacking((READ,))
    assert len(session.asked) == 1


async def test_a_list_without_end_is_left() -> None:
    session = Pages({"value": [], "nextLink": f"{HOST}/more"})
    assert await arm(session).lacking((READ,)) == (READ,)
    assert len(session.asked) == MAX_PAGES
