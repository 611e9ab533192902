"""The query protocol of EC2 and STS: form parameters in, XML out. Pure.

`Tag.1.Key=a&Tag.1.Value=b` becomes {"Tag": [{"Key": "a", "Value": "b"}]}; numbers are places in lists.
"""

from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from appliance.sim.call import Refusal

Tree = dict[str, Any]


def read_form(body: bytes) -> Tree:
    """Return the nested parameters.

    Raises:
        Refusal: MalformedQueryString.
    """
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body))
    except ValueError as err:
        raise Refusal(400, "MalformedQueryString", str(err)) from err
    tree: Tree = {}
    for name, value in pairs:
        place = tree
        *parents, last = name.split(".")
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise Refusal(400, "MalformedQueryString", f"{name} is a value and a table.")
            place = inner
        place[last] = value
    lists: Tree = _lists(tree)
    return lists


def _lists(value: Any) -> Any:  # noqa: ANN401 - a tree of values
    if not isinstance(value, dict):
        return value
    if value and all(key.isdecimal() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(inner) for key, inner in value.items()}


def require_known(args: Tree, known: set[str]) -> None:
    """Refuse what this simulator does not know: what is not simulated is no success."""
    for name in args:
        if name not in known | {"Action", "Version"}:
            raise Refusal(400, "UnknownParameter", f"The parameter {name} is not simulated.")


def need(args: Tree, name: str) -> Any:  # noqa: ANN401 - a tree of values
    """Return a parameter that must be there."""
    if not args.get(name):
        message = f"The request must contain the parameter {name}."
        raise Refusal(400, "MissingParameter", message)
    return args[name]


def tags_of(args: Tree, resource: str) -> dict[str, str]:
    """Return the tags that TagSpecification gives to one kind of resource."""
    found: dict[str, str] = {}
    for specification in args.get("TagSpecification", []):
        if specification.get("ResourceType") == resource:
            found |= {tag["Key"]: tag.get("Value", "") for tag in specification.get("Tag", [])}
    return found


def tag_set(tags: dict[str, str]) -> list[Tree]:
    """Return tags as answers hold them."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def xml(name: str, value: Any) -> str:  # noqa: ANN401 - a tree of values
    """Return an element: tables are elements by name, lists hold `item`."""
    if isinstance(value, dict):
        inner = "".join(xml(key, one) for key, one in value.items() if one is not None)
    elif isinstance(value, list):
        inner = "".join(xml("item", one) for one in value)
    elif isinstance(value, bool):
        inner = "true" if value else "false"
    else:
        inner = escape(str(value))
    return f"<{name}>{inner}</{name}>"
