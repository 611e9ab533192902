"""`imageport completion bash|zsh|fish`: a completion script, made from the parsers of all commands. Asks no relay."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.cli import output
from appliance.cli.exits import Exit

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class Place:
    """What may follow a row of words: the words themselves are the key, `words` the choices."""

    path: tuple[str, ...]
    words: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    parser.add_argument("shell", choices=SHELLS, help="source its output in the shell's start file")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from appliance.cli.main import full_parser  # noqa: PLC0415 - main imports this module by name

    places = list(walk(full_parser()))
    output.answer(fish(places) if args.shell == "fish" else bash(places, zsh=args.shell == "zsh"))
    return Exit.OK


def walk(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Place]:
    """Yield every place of a parser and of its subparsers."""
    words: list[str] = []
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        words += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            inner += action.choices.items()
        elif action.choices and not action.option_strings:
            words += [str(choice) for choice in action.choices]
    yield Place(path, tuple(words + [name for name, _ in inner]))
    for name, sub in inner:
        yield from walk(sub, (*path, name))


def bash(places: list[Place], *, zsh: bool) -> str:
    """Write the script for bash; zsh reads the same through bashcompinit."""
    cases = "\n".join(
        f'    "{" ".join(place.path)}") words="{" ".join(place.words)}" ;;' for place in places
    )
    head = "autoload -U +X bashcompinit && bashcompinit\n" if zsh else ""
    return f"""{head}_imageport() {{
  local path="" word words="" current="${{COMP_WORDS[COMP_CWORD]}}"
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$word" in -*) ;; *) case "${{path:+$path }}$word" in
      {"|".join(f'"{" ".join(place.path)}"' for place in places if place.path)}) path="${{path:+$path }}$word" ;;
    esac ;; esac
  done
  case "$path" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F _imageport imageport"""


def fish(places: list[Place]) -> str:
    """Write the script for fish."""
    lines = []
    for place in places:
        seen = [f"__fish_seen_subcommand_from {word}" for word in place.path]
        condition = "; and ".join(seen) or "__fish_use_subcommand"
        plain = " ".join(word for word in place.words if not word.startswith("-"))
        if plain:
            lines.append(f"complete -c imageport -f -n '{condition}' -a '{plain}'")
        lines += [
            f"complete -c imageport -n '{condition}' -l {word[2:]}"
            for word in place.words
            if word.startswith("--")
        ]
    return "\n".join(lines)
