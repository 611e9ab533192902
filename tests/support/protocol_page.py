"""Writes the example blocks into protocol/SPEC.md: `python -m tests.support.protocol_page`.

A block's first line names it: "```example <name>" (what it says must come out) or "```refused <name>" (the code must
come out).
"""

from tests.support.protocol_blocks import FENCE, PAGE, Block
from tests.support.protocol_examples import shown
from tests.support.protocol_refusals import refused


def blocks() -> list[Block]:
    """Return every block that the page may show."""
    return [*shown(), *refused()]


def render(text: str) -> str:
    """Return the page with every block made anew; a block whose name is unknown raises KeyError."""
    made = {block.name: block for block in blocks()}
    return FENCE.sub(lambda m: made[m[2]].text(), text)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
