"""What a manifest means: whether all that it names is there. After the schema, before building.

The value may still have faults in it, of the stages before. What they spoil is passed over, and in
what they make doubtful nothing is called missing.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from engine.loading.classes import ClassError, FlowClasses, KnownClass
from engine.loading.compositions import Compositions
from engine.loading.document import Document
from engine.loading.faults import Faults
from engine.loading.paths import Path, path_text
from engine.loading.references import Endpoint, References, mapping
from engine.loading.suggestions import Suggestions, listing
from engine.model.ids import DEFAULT_DISPATCH_POINT, LOCAL, is_user_id

ANYBODY = "any"
_CONFIG_SECTIONS = ("config_overrides", "initial_state")
_RESERVED = "$env"


class MeaningCheck:
    """Checks one document's resolved value; `sources` as in SchemaCheck."""

    def __init__(
        self,
        document: Document,
        faults: Faults,
        suggestions: Suggestions,
        classes: FlowClasses,
        sources: Mapping[Path, str],
    ) -> None:
        self._document = document
        self._faults = faults
        self._suggestions = suggestions
        self._classes = classes
        self._sources = sources
        self._users: Mapping[str, Any] = {}

    def check(self, value: Any) -> None:
        """Note all that is named in `value` and is not there, or cannot work."""
        self._users = mapping(mapping(value).get("users"))
        self._check_core(mapping(value).get("core"))
        references = References(self._users, self._faults, self._suggestions, self._add)
        compositions = Compositions(self._add, self._faults)
        for name, user in self._users.items():
            path: Path = ("users", name)
            self._check_user_name(name)
            self._check_dispatch_points(path, mapping(user))
            for endpoint, flow in mapping(mapping(user).get("flows")).items():
                flow_path = (*path, "flows", endpoint)
                self._check_flow(flow_path, name, mapping(flow), references, compositions)
            for mount_name, mount in mapping(mapping(user).get("mounts")).items():
                mount_path = (*path, "mounts", mount_name)
                references.check_mount(mount_path, name, mapping(mount))
        references.check_cycles()
        compositions.check_fits()

    def _add(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        if self._faults.spoiled(path):
            return
        source = self._sources.get(path)
        if source is not None:
            word = rf"(?<![\w.-]){re.escape(str(self._at(path)))}(?![\w-])"
            message, hint = (re.sub(word, lambda _: source, text) for text in (message, hint))
        self._faults.add(self._document.place(path, key=at_key), path, message, hint)

    def _at(self, path: Path) -> Any:
        current: Any = {"users": self._users}
        for part in path:
            current = current[part]
        return current

    # --- users --------------------------------------------------------------------------------

    def _check_core(self, core: Any) -> None:
        """Check that users have a token exactly where they need one."""
        if self._faults.spoiled(("core",)):
            return
        remote = isinstance(core, dict)
        for name, user in self._users.items():
            path: Path = ("users", name)
            if not isinstance(user, dict) or "user_id" in user:
                continue
            tokens = [key for key in ("jwt", "jwt_file") if key in user]
            if remote and not tokens and not self._faults.doubtful(path):
                hint = "Write jwt: ${oc.env:<VARIABLE>} or jwt_file: <path>."
                self._add(path, "A user on a real core needs its token.", hint, at_key=True)
            for key in tokens:
                if not remote:
                    message = "The embedded core makes its users itself, and needs no token."
                    hint = "Remove it, or say where the core is: core: {address: https://…}."
                    self._add((*path, key), message, hint, at_key=True)

    def _check_user_name(self, name: str) -> None:
        path: Path = ("users", name)
        if name in (LOCAL, ANYBODY):
            message = f"A user cannot be called {name}: the word has a meaning of its own."
            self._add(path, message, "Choose another name.", at_key=True)
        elif is_user_id(name):
            hint = f"Give it a name: <name>: {{user_id: {name}}}."
            self._add(path, "A user id cannot be a user's name.", hint, at_key=True)

    def _check_dispatch_points(self, path: Path, user: Mapping[str, Any]) -> None:
        """Check that each dispatch point with flows has a worker; once for each point."""
        workers_path = (*path, "workers")
        dispatch_path = (*workers_path, "dispatch")
        if self._faults.doubtful(path, workers_path, dispatch_path):
            return
        dispatch = mapping(user.get("workers")).get("dispatch", 1)
        counts = dispatch if isinstance(dispatch, dict) else {DEFAULT_DISPATCH_POINT: dispatch}
        told: set[str] = set()
        for endpoint, flow in mapping(user.get("flows")).items():
            point = mapping(flow).get("dispatch_point", DEFAULT_DISPATCH_POINT)
            flow_path: Path = (*path, "flows", endpoint)
            if not isinstance(point, str) or point in told:
                continue
            if self._faults.spoiled((*dispatch_path, point)) or counts.get(point, 0) != 0:
                continue
            told.add(point)
            self._no_worker(flow_path, mapping(flow), point, counts, str(path[1]))

    def _no_worker(
        self,
        path: Path,
        flow: Mapping[str, Any],
        point: str,
        counts: Mapping[str, Any],
        user: str,
    ) -> None:
        written = "dispatch_point" in flow
        message = f"No dispatch worker of {user} is at the dispatch point {point}."
        others = [name for name, count in counts.items() if count != 0]
        close = self._suggestions.closest(point, others) if written else None
        add = f"Write {point}: 1 in users.{user}.workers.dispatch."
        if counts.get(point) == 0:
            add = f"Let there be 1 or more in users.{user}.workers.dispatch."
        hint = f"Did you mean {close}? If not: {add[0].lower()}{add[1:]}" if close else add
        place = (*path, "dispatch_point") if written else path
        self._add(place, message, hint, at_key=not written)

    # --- flows --------------------------------------------------------------------------------

    def _check_flow(
        self,
        path: Path,
        user: str,
        flow: Mapping[str, Any],
        references: References,
        compositions: Compositions,
    ) -> None:
        self._check_allow((*path, "allow"), flow.get("allow"))
        class_path = (*path, "flow_class_name")
        name = flow.get("flow_class_name")
        known: KnownClass | None = None
        declared: Mapping[str, Any] | None = None
        if isinstance(name, str) and not self._faults.spoiled(class_path):
            try:
                known = self._classes.known(name)
            except ClassError as error:
                self._add(class_path, error.message, error.hint)
        subflows = mapping(flow.get("subflows"))
        if known is not None:
            overridden = mapping(mapping(flow.get("config_overrides")).get("subflows_config"))
            declared = {**known.subflows, **_overlaid(known.subflows, overridden)}
            if not known.open_subflows:
                self._check_subflow_keys(path, str(name), subflows, declared)
            compositions.add_flow(path, Endpoint(user, str(path[-1])), flow, known)
        references.add_flow(path, Endpoint(user, str(path[-1])), subflows, declared)

    def _check_subflow_keys(
        self,
        path: Path,
        class_name: str,
        subflows: Mapping[str, Any],
        declared: Mapping[str, Any],
    ) -> None:
        for key in subflows:
            if key in declared:
                continue
            known = f"Its subflows: {listing(declared)}." if declared else "It has none."
            message = f"{class_name} has no subflow {key}."
            hint = self._suggestions.hint(key, declared, known)
            self._add((*path, "subflows", key), message, hint, at_key=True)

    def _check_allow(self, path: Path, allow: Any) -> None:
        for operation, users in mapping(allow).items():
            self._check_allow((*path, operation), users)
        for index, name in enumerate(allow if isinstance(allow, list) else ()):
            if not isinstance(name, str) or name == ANYBODY or name in self._users:
                continue
            if is_user_id(name) or self._faults.doubtful(("users",)):
                continue
            otherwise = "Name a user of this manifest, a 66-digit id, or any."
            hint = self._suggestions.hint(name, [*self._users, ANYBODY], otherwise)
            self._add((*path, index), f"There is no user {name}.", hint)


def check_reserved(document: Document, faults: Faults) -> None:
    """Note each key `$env` in what is given to flows: only the engine writes it, for secrets."""
    for name, user in mapping(mapping(document.value).get("users")).items():
        for section, entries in mapping(user).items():
            if section not in ("flows", "mounts"):
                continue
            for entry_name, entry in mapping(entries).items():
                path: Path = ("users", name, section, entry_name)
                for found in _reserved(mapping(entry), path):
                    hint = f"Write ${{oc.env:NAME}} as the value of {path_text(found[:-1])}."
                    message = f"The key {_RESERVED} is the engine's own."
                    faults.add(document.key_place(found), found, message, hint)


def _reserved(entry: Mapping[str, Any], path: Path) -> Iterable[Path]:
    for section in _CONFIG_SECTIONS:
        yield from _reserved_below(entry.get(section), (*path, section))
    for key, subflow in mapping(entry.get("subflows")).items():
        overrides = mapping(subflow).get("config_overrides")
        yield from _reserved_below(overrides, (*path, "subflows", key, "config_overrides"))


def _reserved_below(value: Any, path: Path) -> Iterable[Path]:
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        if key == _RESERVED:
            yield (*path, key)
        yield from _reserved_below(item, (*path, key))


def _overlaid(declared: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the subflows in `overrides` as they are with the class's own fields below them."""
    return {key: {**mapping(declared.get(key)), **mapping(overrides[key])} for key in overrides}
