"""Every page of --help: each argument explained, each default said, each example a command that the parser takes."""

import argparse
import shlex
from collections.abc import Iterator

import pytest

from appliance.cli.main import full_parser

PARSER = full_parser()


def pages(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from pages(inner)


PAGES = {page.prog: page for page in pages(PARSER)}
COMMANDS = {
    prog: page
    for prog, page in PAGES.items()
    if not any(isinstance(action, argparse._SubParsersAction) for action in page._actions)
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_says_what_it_is_about_and_explains_each_argument(
    page: argparse.ArgumentParser,
) -> None:
    assert page.description
    shown = [a for a in page._actions if not isinstance(a, argparse._SubParsersAction)]
    assert [action.dest for action in shown if not action.help] == []


@pytest.mark.parametrize("page", COMMANDS.values(), ids=COMMANDS)
def test_every_default_is_said(page: argparse.ArgumentParser) -> None:
    usual = [a for a in page._actions if a.default not in (None, False, argparse.SUPPRESS, [])]
    assert [a.dest for a in usual if "default: " not in str(a.help)] == []


@pytest.mark.parametrize("page", COMMANDS.values(), ids=COMMANDS)
def test_every_example_is_a_command_that_the_parser_takes(page: argparse.ArgumentParser) -> None:
    lines = [
        line.strip()
        for line in str(page.epilog).splitlines()
        if line.strip().startswith("imageport ")
    ]
    assert lines
    for line in lines:
        assert line.startswith(page.prog)
        words = shlex.split(line, comments=True)
        ends = [n for n, word in enumerate(words) if word[0] in "|<>"]
        PARSER.parse_args(words[1 : ends[0] if ends else None])


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_can_be_printed(page: argparse.ArgumentParser) -> None:
    assert page.format_help().startswith("usage: imageport")
