"""`imageport completion bash|zsh|fish`: a completion script, made from the parsers of all commands. Asks no relay."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import show_examples

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class Place:
    """What may follow a row of words: the words themselves are the key, `words` the choices."""

    path: tuple[str, ...]
    words: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    show_examples(
        parser,
        "imageport completion bash > ~/.local/share/bash-completion/completions/imageport",
        "imageport completion zsh > ~/.imageport.zsh   # and `source ~/.imageport.zsh` in ~/.zshrc",
        "imageport completion fish > ~/.config/fish/completions/imageport.fish",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads it")


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
        if action.help == argparse.SUPPRESS:
            continue
        words += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            inner += action.choices.items()
        elif action.choices and not action.option_strings:
            words += [str(choice) for choice in action.choices]
    yield Place(path, tuple(words + [name for name, _ in inner]))
    for name, sub in inner:
        yield from walk(sub, (*path, name))


def bash(places: list[Place], *, zsh: bool) -> str:
    """Write the script for bash; zsh reads the same through bashcompinit, where `path` and `words` are not ours."""
    cases = "\n".join(
        f'    "{" ".join(place.path)}") known="{" ".join(place.words)}" ;;' for place in places
    )
    head = "autoload -U +X bashcompinit && bashcompinit\n" if zsh else ""
    return f"""{head}_imageport() {{
  local at="" word known="" current="${{COMP_WORDS[COMP_CWORD]}}"
  for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD-1))}}"; do
    case "$word" in -*) ;; *) case "${{at:+$at }}$word" in
      {"|".join(f'"{" ".join(place.path)}"' for place in places if place.path)}) at="${{at:+$at }}$word" ;;
    esac ;; esac
  done
  case "$at" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$known" -- "$current"))
  [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F _imageport imageport"""


def fish(places: list[Place]) -> str:
    """Write the script for fish: a place's words are offered there and nowhere below."""
    known = " ".join(f"'{' '.join(place.path)}'" for place in places if place.path)
    lines = [
        f"""function __imageport_at
  set -l at ''
  for word in (commandline -opc)[2..-1]
    set -l next (string trim -- "$at $word")
    contains -- "$next" {known}; and set at $next
  end
  test "$at" = "$argv[1]"
end"""
    ]
    for place in places:
        condition = f'__imageport_at "{" ".join(place.path)}"'
        plain = " ".join(word for word in place.words if not word.startswith("-"))
        if plain:
            lines.append(f"complete -c imageport -f -n '{condition}' -a '{plain}'")
        for word in place.words:
            kind, name = ("-l", word[2:]) if word.startswith("--") else ("-s", word[1:])
            if word.startswith("-"):
                lines.append(f"complete -c imageport -n '{condition}' {kind} {name}")
    return "\n".join(lines)
