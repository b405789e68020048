"""`colink-server check` and `colink-server backup`: what one does to a store from outside."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.core.check import back_up, check

COMMANDS = ("check", "backup")


def run(arguments: Sequence[str]) -> int:
    """Run one of COMMANDS and return the exit code: 0 when all is well, 1 when the store is not.

    Prints a usage message and raises SystemExit for wrong arguments; raises UsageError when there
    is no store, or the target cannot be written.
    """
    given = _parser().parse_args(arguments)
    home = Path(given.home).resolve()
    if given.command == "backup":
        back_up(home, Path(given.target).resolve())
        home = Path(given.target).resolve()
    faults, sizes = check(home)
    for fault in faults:
        print(fault)  # noqa: T201 - the program's output
    counts = ", ".join(f"{count} {table}" for table, count in sizes.items())
    print(f"{home}: {'NOT sound' if faults else f'sound: {counts}'}")  # noqa: T201
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="colink-server")
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="tell whether a store is sound")
    backup = commands.add_parser("backup", help="copy a store, also one in use, and check the copy")
    backup.add_argument("target", help="a new folder; the copy is the home of a core again")
    for command in (checking, backup):
        command.add_argument("--home", default=".", help="the core's folder; default: here")
    return parser
