"""Completion of the command line by shells: scripts made from the parser, which start no program when a key is hit."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

SHELLS = ("bash", "zsh", "fish")

_SUFFIXES = {
    "net": (".onnx", ".onnx.gz"),
    "model": (".onnx", ".onnx.gz"),
    "spec": (".vnnlib", ".vnnlib.gz"),
    "certificate": (".json",),
    "instances": (".csv", ".csv.gz"),
    "first": (".csv",),
    "second": (".csv",),
}
_FILES = {"json", "html", "results_file", "center", "data", "labels"}
"""Options that take a file of any name."""
_FOLDERS = {"checkpoint", "out"}

_BASH = """\
_zonocuda() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}"
    local name suffix suffixes=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@" -- "$cur"))
        return
    fi
    case "$command $prev" in
@VALUES@
    esac
    case "$command" in
@OPTIONS@
    esac
    while IFS= read -r name; do
        [ -d "$name" ] && COMPREPLY+=("$name")
        for suffix in $suffixes; do
            [[ -f "$name" && "$name" == *"$suffix" ]] && COMPREPLY+=("$name")
        done
    done < <(compgen -f -- "$cur")
}
complete -o filenames -o default -F _zonocuda zonocuda
"""


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script of a shell for the commands of a parser; ``eval`` or ``source`` it."""
    if shell == "fish":
        return "".join(f"{line}\n" for line in _fish(parser))
    script = _bash(parser)
    return script if shell == "bash" else "autoload -U +X bashcompinit && bashcompinit\n" + script


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (group,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(group.choices)


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _bash(parser: argparse.ArgumentParser) -> str:
    commands = commands_of(parser)
    own = [flag for action in _options(parser) for flag in action.option_strings]
    values, options = [], []
    for name, command in commands.items():
        for action in filter(_takes_value, _options(command)):
            pattern = "|".join(f'"{name} {flag}"' for flag in action.option_strings)
            reply = "" if action.dest in _FILES else "compopt +o default; "  # else bash completes names of files
            if action.dest in _FOLDERS:
                reply = 'COMPREPLY=($(compgen -d -- "$cur")); '
            if action.choices:
                reply = f"{_words(action.choices)}; "
            values.append(f"        {pattern}) {reply}return;;")
        flags = [flag for action in _options(command) for flag in action.option_strings]
        positional = [action for action in command._actions if not action.option_strings]
        suffixes = [s for action in positional for s in _SUFFIXES.get(action.dest, ())]
        words = [str(choice) for action in positional for choice in action.choices or ()]
        options += [
            f"        {name})",
            f'            suffixes="{" ".join(suffixes)}"',
            f'            if [[ "$cur" == -* ]]; then {_words(flags)}; return; fi',
            *([f"            {_words(words)}; return"] if words else []),
            "            ;;",
        ]
    filled = {"COMMANDS": " ".join([*commands, *own]), "VALUES": "\n".join(values), "OPTIONS": "\n".join(options)}
    script = _BASH
    for name, text in filled.items():
        script = script.replace(f"@{name}@", text)
    return script


def _words(words: Iterable[object]) -> str:
    """What offers those words that begin with the current one."""
    return f'COMPREPLY=($(compgen -W "{" ".join(map(str, words))}" -- "$cur"))'


def _fish(parser: argparse.ArgumentParser) -> Iterator[str]:
    commands = commands_of(parser)
    yield f"complete -c zonocuda -f -n __fish_use_subcommand -a '{' '.join(commands)}'"
    for name, command in [("", parser), *commands.items()]:
        where = f"-n '__fish_seen_subcommand_from {name}'" if name else "-n __fish_use_subcommand"
        for action in _options(command):
            flags = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in action.option_strings
            )
            value = ""
            if _takes_value(action):
                value = f" -x -a '{' '.join(map(str, action.choices))}'" if action.choices else " -r"
            text = (action.help or "").replace("\\", "\\\\").replace("'", "\\'")
            yield f"complete -c zonocuda {where} {flags}{value} -d '{text}'"
        words = [str(w) for action in command._actions if not action.option_strings for w in action.choices or ()]
        if name and words:
            yield f"complete -c zonocuda -f {where} -a '{' '.join(words)}'"
