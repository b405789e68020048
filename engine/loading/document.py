"""A manifest's text as JSON data, and where in the text each part of it stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.flows.config import lay_over
from engine.loading import scalars
from engine.loading.faults import Faults, Place
from engine.loading.nodes import DEEPEST, Node, merged, parse
from engine.loading.paths import Path

_LARGEST = 1_000_000
"""Values in a manifest with every alias written out; a flow of ten lines has about fifteen."""
_MERGE = "<<"


class Unknown:
    """Stands for a value that a fault keeps from being known."""


UNKNOWN = Unknown()

Found = tuple[Place, Node]
"""Where a key stands, and the node of its value."""


@dataclass(frozen=True)
class Part:
    """One of the texts, or sections of them, of which a document is put together.

    `origin` says why it is there, such as `profile dev`; empty for a manifest's own file.
    """

    node: Node
    value: Any
    origin: str = ""


@dataclass(frozen=True)
class Setting:
    """What one part says at a path: the value as written, and where."""

    place: Place
    value: Any
    origin: str


@dataclass
class Document:
    """`value` is JSON data (Unknown where a fault is); `place` tells where a path stands.

    The value is that of all `parts`, each laid over those before it.
    """

    value: Any
    parts: tuple[Part, ...]
    _entries: dict[int, dict[str, tuple[Node, Node]]] = field(default_factory=dict)
    _around: dict[Path, list[Found]] = field(default_factory=dict)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Return where the value at `path` begins, or with `key` its key.

        The key is also the answer when nothing is written after it; the place of what is around it
        when the path leads beyond what is written. Of a mapping that several parts write it is
        where the first of them does.
        """
        found = self._at(path)
        while not found:
            path, key = path[:-1], False
            found = self._at(path)
        key_place, node = _in_force(found)[0]
        written = node.kind != "scalar" or node.text or not node.plain
        return key_place if key or not written else node.place

    def key_place(self, path: Path) -> Place:
        """Return where the key of `path` stands, for the root the beginning of the document."""
        return self.place(path, key=True)

    def settings(self, path: Path) -> list[Setting]:
        """Return what each part says at `path`, in their order: the last of them counts."""
        settings = []
        for part in self.parts:
            alone = Document(part.value, (part,))
            found, value = alone.parts[0].node, part.value
            for step in path:
                below = self._step(found.resolved(), step)
                if below is None or not _has(value, step):
                    break
                found, value = below[1], value[step]
            else:
                settings.append(Setting(alone.place(path, key=True), value, part.origin))
        return settings

    def section(self, path: Path, origin: str) -> Part:
        """Return what is at `path` as a part of its own; this document has one part."""
        node, value = self.parts[0].node, self.value
        for step in path:
            below = self._step(node.resolved(), step)
            assert below is not None
            node, value = below[1].resolved(), value[step]
        return Part(node, value, origin)

    def _at(self, path: Path) -> list[Found]:
        """Return what all parts say at `path`, nothing when it leads beyond what is written."""
        if not path:
            return [(part.node.place, part.node) for part in self.parts]
        around = self._around.get(path[:-1])
        if around is None:
            # Ten thousand flows may be in a thousand parts: each level is gone through once.
            around = self._around[path[:-1]] = _in_force(self._at(path[:-1]))
        steps = (self._step(node.resolved(), path[-1]) for _, node in around)
        return [below for below in steps if below is not None]

    def _step(self, node: Node, part: str | int) -> Found | None:
        if node.kind == "list" and isinstance(part, int) and part < len(node.items):
            return node.items[part].place, node.items[part]
        if node.kind != "mapping" or not isinstance(part, str):
            return None
        entries = self._entries.get(id(node))
        if entries is None:
            entries = self._entries[id(node)] = _entries(node)
        found = entries.get(part)
        return None if found is None else (found[0].place, found[1])


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _in_force(found: list[Found]) -> list[Found]:
    """Return the last one, and the mappings before it into which it is laid."""
    first = max(len(found) - 1, 0)
    kinds = [node.resolved().kind for _, node in found]
    while first and kinds[first - 1] == kinds[first] == "mapping":
        first -= 1
    return found[first:]


def read_document(text: str, file: str, faults: Faults) -> Document | None:
    """Return the document in `text`, None when it is empty; faults of keys and scalars are noted.

    Raises InvalidManifestError when the text is not YAML, or grows without bounds.
    """
    root = parse(text, file, faults)
    if root is None:
        return None
    value = _Reader(faults).value(root, ())
    return Document(value, (Part(root, value),))


def laid_over(parts: Sequence[Part]) -> Document:
    """Return the document of `parts`: mappings go into mappings, all else replaces."""
    value = parts[0].value
    for part in parts[1:]:
        if isinstance(value, dict) and isinstance(part.value, dict):
            value = lay_over(dict(value), part.value)
        else:
            value = part.value
    return Document(value, tuple(parts))


def _entries(node: Node) -> dict[str, tuple[Node, Node]]:
    """Return the key and value node of each key; the first one of a key that stands twice."""
    entries: dict[str, tuple[Node, Node]] = {}
    inherited: list[tuple[Node, Node]] = []
    for key, value in node.pairs:
        if _is_merge(key):
            inherited += _merged_or_nothing(value)
        else:
            entries.setdefault(key.resolved().text, (key, value))
    for key, value in inherited:
        entries.setdefault(key.resolved().text, (key, value))
    return entries


def _merged_or_nothing(value: Node) -> list[tuple[Node, Node]]:
    try:
        return list(merged(value))
    except TypeError:
        return []


def _is_merge(key: Node) -> bool:
    return key.plain and key.text == _MERGE


class _Reader:
    """Turns nodes into values."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._size = 0
        self._aliases: list[Node] = []
        self._kinds: dict[str, Callable[[Node, Path], Any]] = {
            "scalar": self._scalar,
            "mapping": self._mapping,
            "list": self._list,
            "alias": self._alias,
        }

    def value(self, node: Node, path: Path) -> Any:
        self._size += 1
        if self._size > _LARGEST or len(path) > DEEPEST:
            self._too_large(self._aliases[0] if self._aliases else node, path)
        return self._kinds[node.kind](node, path)

    def _too_large(self, node: Node, path: Path) -> None:
        message = f"With this the manifest grows to more than {_LARGEST:,} values."
        if len(path) > DEEPEST:
            message = f"With this the manifest is nested more than {DEEPEST} levels deep."
        self._faults.add(node.place, (), message, "Use fewer aliases (*name), or several files.")
        self._faults.raise_if_any()

    def _alias(self, node: Node, path: Path) -> Any:
        self._aliases.append(node)
        try:
            return self.value(node.resolved(), path)
        finally:
            self._aliases.pop()

    def _list(self, node: Node, path: Path) -> Any:
        if node.tag not in (None, "tag:yaml.org,2002:seq"):
            return self._unknown_tag(node, path)
        return [self.value(item, (*path, index)) for index, item in enumerate(node.items)]

    def _scalar(self, node: Node, path: Path) -> Any:
        try:
            if node.tag is not None:
                return scalars.tagged(node.text, node.tag)
            return scalars.plain(node.text) if node.plain else node.text
        except KeyError:
            return self._unknown_tag(node, path)
        except ValueError:
            tag = _tag_text(node)
            self._bad(node.place, path, f"This is not of the type {tag}.", "Remove the tag.")
        except scalars.AmbiguousScalarError as error:
            self._bad(node.place, path, error.message, error.hint)
        return UNKNOWN

    def _unknown_tag(self, node: Node, path: Path) -> Any:
        hint = "Remove it: a manifest holds only text, numbers, booleans, lists and mappings."
        self._bad(node.place, path, f"The tag {_tag_text(node)} is not allowed.", hint)
        return UNKNOWN

    def _bad(self, place: Place, path: Path, message: str, hint: str) -> None:
        self._faults.add(place, path, message, hint)
        self._faults.spoil(path)

    def _mapping(self, node: Node, path: Path) -> Any:
        if node.tag not in (None, "tag:yaml.org,2002:map"):
            return self._unknown_tag(node, path)
        result: dict[str, Any] = {}
        first: dict[str, Place] = {}
        inherited: list[tuple[Node, Node]] = []
        for key_node, value_node in node.pairs:
            if _is_merge(key_node):
                inherited += self._merged(value_node, path)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in first:
                self._twice(key_node.place, (*path, key), first[key])
                continue
            first[key] = key_node.place
            result[key] = self.value(value_node, (*path, key))
        for key_node, value_node in inherited:
            key = self._key(key_node, path)
            if key is not None and key not in result:
                result[key] = self.value(value_node, (*path, key))
        return result

    def _twice(self, place: Place, path: Path, first: Place) -> None:
        message = f"This key stands twice; first in line {first[1]}."
        self._faults.add(place, path, message, "Keep one of the two.")
        self._faults.doubt(path)
        self._faults.doubt(path[:-1])

    def _merged(self, node: Node, path: Path) -> list[tuple[Node, Node]]:
        try:
            return list(merged(node))
        except TypeError:
            message = "Only a mapping, or a list of them, can be merged."
            self._faults.add(node.place, (*path, _MERGE), message, "Use << with an alias: *name.")
            self._faults.doubt(path)
            return []

    def _key(self, node: Node, path: Path) -> str | None:
        """Return a key as text; one that is not text is a fault, and taken as its text."""
        key = node.resolved()
        if key.kind != "scalar":
            message = "A key must be text, not a list or mapping."
            self._faults.add(node.place, path, message, "Put {…} in quotes if text is meant.")
            self._faults.doubt(path)
            return None
        if key.plain:
            self._check_plain_key(node.place, (*path, key.text), key.text)
        return key.text

    def _check_plain_key(self, place: Place, path: Path, text: str) -> None:
        try:
            value = scalars.plain(text)
        except scalars.AmbiguousScalarError as error:
            self._faults.add(place, path, error.message, f'Put the key in quotes: "{text}".')
            return
        if not isinstance(value, str):
            kind = {bool: "a boolean", type(None): "null"}.get(type(value), "a number")
            message = f"The key {text or 'here'} is {kind}, and keys are text."
            self._faults.add(place, path, message, f'Put it in quotes: "{text}".')


def _tag_text(node: Node) -> str:
    tag = str(node.tag)
    return tag.replace("tag:yaml.org,2002:", "!!") if tag.startswith("tag:") else tag
