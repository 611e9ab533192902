"""How the pages of `--help` look: one line of what it does, its arguments, whole commands to copy. Knows no command."""

import argparse


class Page(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of examples as they are, and a column that is wide enough for our options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    verb: str,
    text: str,
    *examples: str,
) -> argparse.ArgumentParser:
    """Declare a verb with what it does and with whole commands that do it; tests parse every example."""
    parser = verbs.add_parser(verb, help=text, description=text, formatter_class=Page)
    show_examples(parser, *examples)
    return parser


def show_examples(parser: argparse.ArgumentParser, *examples: str, more: str = "") -> None:
    """Put examples, and then `more`, at the end of a page."""
    lines = ["example:" if len(examples) == 1 else "examples:", *(f"  {one}" for one in examples)]
    parser.formatter_class = Page
    parser.epilog = "\n".join([*lines, "", more] if more else lines)
