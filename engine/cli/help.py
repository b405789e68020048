"""How `--help` reads: names as they are typed, what they mean, and examples at the end.

typer's own help differs between its versions and shows Python types; this is the same everywhere.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Any

from typer.core import TyperCommand, TyperGroup

Row = tuple[str, str]

EXAMPLES = {
    "validate": (
        "engine validate manifest.yaml",
        "engine validate manifests/*.yaml -o json",
        "engine validate manifest.yaml -f production.yaml --profile large",
    ),
    "plan": ("engine plan manifest.yaml", "engine plan manifest.yaml --detailed-exitcode"),
    "config": (
        "engine config manifest.yaml -f production.yaml",
        "engine config manifest.yaml --explain users.user0.workers.dispatch",
    ),
    "apply": (
        "engine apply manifest.yaml",
        "engine apply manifest.yaml -f production.yaml --env-file production.env",
        "engine apply --dry-run manifest.yaml",
        "engine --home /data apply --foreground manifest.yaml",
    ),
    "status": ("engine status", "engine status --watch", "engine status reverse-number -o json"),
    "call": (
        "engine call user1/twice '{\"number\": 1234}'",
        "engine call user1/twice @input.json --timeout 5",
        "engine call user0/reverse_number_atomic - --as user1 < input.json",
    ),
    "logs": ("engine logs -f", "engine logs -n 20 user0/coflows_dispatch-0", "engine logs core"),
    "events": ("engine events", "engine events -f -o json"),
    "storage": (
        "engine storage user0",
        "engine storage user0 flows:reverse_number_atomic --values",
    ),
    "flows": ("engine flows", "engine flows reverse_number.ReverseNumberAtomicFlow"),
    "users": ("engine users", "engine users token user0 --expires-in 3600"),
    "token": ("engine users token user0",),
    "schema": (
        "engine schema > manifest.v1.schema.json",
        "engine schema --layer > layer.v1.schema.json",
    ),
    "init": ("engine init", "engine init flows/mine.yaml"),
    "completion": ("engine completion bash", "engine completion fish > engine.fish"),
    "down": ("engine down reverse-number", "engine down --all", "engine down --all --purge"),
    "core": ("engine core --help", "engine core --home /data/core --port 2021"),
}
"""By command; each can be run as it stands."""


class _Plain:
    """What commands and groups have in common."""

    def collect_usage_pieces(self: Any, context: Any) -> list[str]:
        """Return what stands after the command in the line `Usage:`."""
        pieces = [parameter.metavar for parameter in _arguments(self)]
        command = ["COMMAND ..."] if hasattr(self, "commands") else []
        return ["[OPTIONS]", *pieces, *command]

    def format_options(self: Any, context: Any, formatter: Any) -> None:
        """Write the sections below the text."""
        options = [_option(p) for p in self.get_params(context) if p.param_type_name == "option"]
        arguments = [(p.metavar, p.help or "") for p in _arguments(self)]
        _section(formatter, "Arguments", arguments)
        _section(formatter, "Options", options)
        commands = getattr(self, "commands", {})
        _section(formatter, "Commands", [(name, _first(one)) for name, one in commands.items()])
        _section(formatter, "Examples", [(line, "") for line in EXAMPLES.get(self.name, ())])


class Command(_Plain, TyperCommand):
    """A command whose help is of this module."""


class Group(_Plain, TyperGroup):
    """A group of commands whose help is of this module."""


def _arguments(command: Any) -> Iterator[Any]:
    return (one for one in command.params if one.param_type_name == "argument")


def _option(parameter: Any) -> Row:
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        names += f" / {', '.join(parameter.secondary_opts)}"
    if not parameter.is_flag:
        names += f" {parameter.metavar}"
    notes = []
    if parameter.envvar:
        notes.append(f"[variable: {parameter.envvar}]")
    if not parameter.is_flag and parameter.default is not None:
        notes.append(f"[default: {_text(parameter.default)}]")
    return names, "  ".join([parameter.help or "", *notes])


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _first(command: Any) -> str:
    """Return a command's first sentence."""
    return str(command.help or "").replace("\n", " ").partition(". ")[0].rstrip(".")


def _section(formatter: Any, title: str, rows: list[Row]) -> None:
    if not rows:
        return
    with formatter.section(title):
        if any(meaning for _, meaning in rows):
            formatter.write_dl(rows)
        else:
            for line, _ in rows:
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")
