"""What a new user gets: operators and entries, as the init file or the default says (§7.5)."""

import asyncio
import logging
import tomllib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from engine.colink import keys, wire
from engine.core.effects import Effects
from engine.core.entries import Entries
from engine.core.external import ExternalOperators
from engine.core.pom import OperatorManager
from engine.core.refusals import Refusal
from engine.kits.aio import cancel_and_wait

log = logging.getLogger(__name__)
_FILES = ("user_init_config.toml", "user_init_config.template.toml")
_PENDING, _DONE = b"\x00", b"\x01"
_ERROR = "_internal:initialisation_error"
_PATIENCE = 120.0
"""Seconds that an operator outside of the core has for its own init; upstream waits for ever."""

DEFAULT: Mapping[str, Any] = {
    "policy_module": {
        "operator_num": 1,
        "create_entry": [{"key_name": "_policy_module:init:accept_all_tasks", "value": "true"}],
    },
    "remote_storage": {"operator_num": 1},
    "registry": {"operator_num": 1, "start_after": ["policy_module", "remote_storage"]},
}
_Tables = list[tuple[str, Mapping[str, Any]]]


class Initialisation:
    """Initialises users: with built-in operators only, at once; with others, in the background."""

    def __init__(
        self,
        entries: Entries,
        operators: OperatorManager,
        external: ExternalOperators,
        effects: Effects,
        folders: Iterable[Path],
    ) -> None:
        self._entries = entries
        self._operators = operators
        self._external = external
        self._effects = effects
        self._folders = tuple(folders)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def run(self, user_id: str) -> None:
        """Start what the configuration asks for and mark the user as initialised.

        A configuration that cannot be followed leaves him uninitialised, with the reason in an
        entry and in the log. What runs already is not started again.
        """
        self._entries.update(user_id, keys.USER_IS_INITIALIZED, _PENDING)
        try:
            tables = ordered(self._configuration())
            while tables and self._operators.knows(tables[0][0]):
                self._start_builtin(user_id, *tables.pop(0))
        except (Refusal, OSError, ValueError, TypeError, KeyError) as error:
            self._failed(user_id, error)
            return
        if not tables:
            self._entries.update(user_id, keys.USER_IS_INITIALIZED, _DONE)
        elif user_id not in self._tasks:
            task = asyncio.create_task(self._go_on(user_id, tables))
            self._tasks[user_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(user_id, None))

    def resume(self, user_ids: Iterable[str]) -> None:
        """Initialise those users for whom that was not done when the core ended."""
        for user_id in user_ids:
            if self._entries.get(user_id, keys.USER_IS_INITIALIZED) != _DONE:
                self.run(user_id)

    async def stop(self) -> None:
        """Leave what is under way to the next start of the core."""
        await cancel_and_wait(list(self._tasks.values()))

    async def _go_on(self, user_id: str, tables: _Tables) -> None:
        """Start the rest, each after those before it are initialised."""
        try:
            for package, table in tables:
                if self._operators.knows(package):
                    self._start_builtin(user_id, package, table)
                    self._effects.run()
                else:
                    await self._start_external(user_id, package, table)
        except (Refusal, OSError, ValueError, TypeError, KeyError) as error:
            self._failed(user_id, error)
        else:
            self._entries.update(user_id, keys.USER_IS_INITIALIZED, _DONE)
        self._effects.run()

    def _start_builtin(self, user_id: str, package: str, table: Mapping[str, Any]) -> None:
        if not self._operators.runs(user_id, package):
            self._write_entries(user_id, table)
            for _ in range(int(table["operator_num"])):
                self._operators.run(user_id, package)

    async def _start_external(self, user_id: str, package: str, table: Mapping[str, Any]) -> None:
        key = keys.protocol_is_initialized(package)
        if not self._operators.runs(user_id, package):
            self._write_entries(user_id, table)
            self._entries.update(user_id, key, _PENDING)
            self._effects.run()
            for _ in range(int(table["operator_num"])):
                request = wire.StartProtocolOperatorRequest(protocol_name=package, user_id=user_id)
                await self._external.start(request)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._initialized(user_id, key)
        except TimeoutError as error:
            raise ValueError(f"the operator {package} is not ready in {_PATIENCE:g} s") from error

    async def _initialized(self, user_id: str, key: str) -> None:
        """Wait until an operator has said that its init is done."""
        while not (self._entries.get(user_id, key) or b"").startswith(_DONE):
            written = asyncio.Event()
            self._entries.watch(user_id, key, partial(_set, written))
            await written.wait()

    def _write_entries(self, user_id: str, table: Mapping[str, Any]) -> None:
        for entry in table.get("create_entry", ()):
            if self._entries.get(user_id, entry["key_name"]) is None:
                self._entries.create(user_id, entry["key_name"], str(entry["value"]).encode())

    def _failed(self, user_id: str, error: Exception) -> None:
        log.error("the user %s cannot be initialised: %s", user_id, error)
        self._entries.update(user_id, _ERROR, str(error).encode())

    def _configuration(self) -> Mapping[str, Any]:
        for name in _FILES:
            for folder in self._folders:
                path = folder / name
                if path.is_file():
                    return tomllib.loads(path.read_text())
        return DEFAULT


def _set(event: asyncio.Event, payload: bytes) -> None:
    event.set()


def ordered(configuration: Mapping[str, Any]) -> _Tables:
    """Return the tables so that each comes after those it names in `start_after`.

    Raises ValueError when they wait for each other, or for one that is not started.
    """
    left = {package: table for package, table in configuration.items() if table["operator_num"] > 0}
    result: _Tables = []
    while left:
        done = {package for package, _ in result}
        ready = [p for p, table in left.items() if done.issuperset(table.get("start_after", ()))]
        if not ready:
            raise ValueError(f"start_after of {', '.join(left)} cannot be fulfilled")
        result += [(package, left.pop(package)) for package in ready]
    return result
