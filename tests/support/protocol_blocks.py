"""Example blocks of protocol/SPEC.md: one value each, how they are written into the page and read from it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from protocol.codec import encode

PAGE = Path(__file__).resolve().parents[2] / "protocol" / "SPEC.md"
FENCE = re.compile(r"^```(example|refused) ([a-z0-9-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block: ordered `key: value` lines; long values go on in lines that begin with two spaces."""

    kind: str
    name: str
    fields: dict[str, str]

    def text(self) -> str:
        """Return the block as it stands in the page."""
        lines = [f"```{self.kind} {self.name}"]
        for key, value in self.fields.items():
            parts = [value[i : i + 108] for i in range(0, len(value), 108)] or [""]
            lines.append(f"{key}: {parts[0]}")
            lines += [f"  {part}" for part in parts[1:]]
        return "\n".join([*lines, "```"])


def parse_page(text: str) -> list[Block]:
    """Return every block of the page, as it stands there."""
    return [Block(m[1], m[2], _fields(m[3])) for m in FENCE.finditer(text)]


def _fields(body: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in body.splitlines():
        if line.startswith("  "):
            fields[key] += line[2:]
        else:
            key, _, value = line.partition(": ")
            fields[key] = value
    return fields


def plain(value: Any) -> Any:
    """Return a layout as JSON takes it: bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def says(value: Any) -> str:
    """Return what a layout says, as one line of JSON in wire order."""
    return json.dumps(
        plain(msgspec.msgpack.decode(encode(value))), separators=(",", ":"), ensure_ascii=True
    )
