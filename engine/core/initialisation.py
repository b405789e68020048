"""What a new user gets: operators and entries, as the init file or the default says (§7.5)."""

import logging
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.colink import keys
from engine.core.entries import Entries
from engine.core.pom import OperatorManager
from engine.core.refusals import Refusal, not_found

log = logging.getLogger(__name__)
_FILES = ("user_init_config.toml", "user_init_config.template.toml")
_PENDING, _DONE = b"\x00", b"\x01"
_ERROR = "_internal:initialisation_error"

DEFAULT: Mapping[str, Any] = {
    "policy_module": {
        "operator_num": 1,
        "create_entry": [{"key_name": "_policy_module:init:accept_all_tasks", "value": "true"}],
    },
    "remote_storage": {"operator_num": 1},
    "registry": {"operator_num": 1, "start_after": ["policy_module", "remote_storage"]},
}


class Initialisation:
    """Initialises users. Built-in operators start at once, so all is done when the import is."""

    def __init__(
        self, entries: Entries, operators: OperatorManager, folders: Iterable[Path]
    ) -> None:
        self._entries = entries
        self._operators = operators
        self._folders = tuple(folders)

    def run(self, user_id: str) -> None:
        """Start what the configuration asks for and mark the user as initialised.

        A configuration that cannot be followed leaves him uninitialised, with the reason in an
        entry and in the log. What runs already is not started again.
        """
        self._entries.update(user_id, keys.USER_IS_INITIALIZED, _PENDING)
        try:
            for package, table in ordered(self._configuration()):
                self._start(user_id, package, table)
        except (Refusal, OSError, ValueError, TypeError, KeyError) as error:
            log.error("the user %s cannot be initialised: %s", user_id, error)
            self._entries.update(user_id, _ERROR, str(error).encode())
            return
        self._entries.update(user_id, keys.USER_IS_INITIALIZED, _DONE)

    def _start(self, user_id: str, package: str, table: Mapping[str, Any]) -> None:
        count = int(table.get("operator_num", 0))
        if count <= 0 or self._operators.runs(user_id, package):
            return
        for entry in table.get("create_entry", ()):
            if self._entries.get(user_id, entry["key_name"]) is None:
                self._entries.create(user_id, entry["key_name"], str(entry["value"]).encode())
        if not self._operators.knows(package):
            raise not_found(f"this core has no operator {package!r}")
        for _ in range(count):
            self._operators.run(user_id, package)

    def _configuration(self) -> Mapping[str, Any]:
        for name in _FILES:
            for folder in self._folders:
                path = folder / name
                if path.is_file():
                    return tomllib.loads(path.read_text())
        return DEFAULT


def ordered(configuration: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the tables so that each comes after those it names in `start_after`.

    Raises ValueError when they wait for each other, or for one that is not started.
    """
    left = {package: table for package, table in configuration.items() if table["operator_num"] > 0}
    result: list[tuple[str, Mapping[str, Any]]] = []
    while left:
        done = {package for package, _ in result}
        ready = [p for p, table in left.items() if done.issuperset(table.get("start_after", ()))]
        if not ready:
            raise ValueError(f"start_after of {', '.join(left)} cannot be fulfilled")
        result += [(package, left.pop(package)) for package in ready]
    return result
