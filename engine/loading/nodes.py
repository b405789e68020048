"""YAML events to nodes with their places. Knows syntax, not what the values mean.

Built from PyYAML's events rather than its nodes: twice as fast, not recursive, and what is nested
too deeply is found before it is read (libyaml needs minutes for a file of opening brackets).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from engine.loading.faults import Faults, Place
from engine.loading.syntax import describe

DEEPEST = 100
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NONE: Any = ()
"""Shared by all nodes that hold no others: most do, and lists of their own would cost much."""


@dataclass(slots=True, eq=False)
class Node:
    """A value as written. `place` is where it begins.

    `pairs` are the key and value nodes of a mapping, `items` those of a list, `target` what an
    alias stands for. `plain` tells that a scalar has no quotes; `tag` is an explicit one.
    """

    kind: Literal["scalar", "mapping", "list", "alias"]
    place: Place
    text: str = ""
    plain: bool = False
    tag: str | None = None
    pairs: "list[tuple[Node, Node]]" = _NONE
    items: "list[Node]" = _NONE
    target: "Node | None" = None
    complete: bool = False

    def resolved(self) -> "Node":
        """Return what an alias stands for, else the node itself."""
        return self if self.target is None else self.target


def parse(text: str, file: str, faults: Faults) -> Node | None:
    """Return the root node of the one document in `text`; None when there is nothing in it.

    `file` is where places say that it stands.

    Raises InvalidManifestError, with one fault, when it is not one well-formed YAML document.
    """
    builder = _Builder(file, faults)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.YAMLError as error:
        place, *said = describe(error, text)
        faults.add((file, *place), (), *said)
        faults.raise_if_any()
    except RecursionError:
        faults.add((file, 0, 0), (), f"Something is nested more than {DEEPEST} levels deep.")
        faults.raise_if_any()
    return builder.root


class _Builder:
    """Puts nodes together from events."""

    def __init__(self, file: str, faults: Faults) -> None:
        self.root: Node | None = None
        self._file = file
        self._faults = faults
        self._open: list[Node] = []
        self._key: list[Node | None] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            plain, explicit = event.implicit[0], event.tag not in (None, "!")
            tag = event.tag if explicit else None
            node = Node("scalar", self._place(event), event.value, plain and not explicit, tag)
            self._anchored(event, node)
            node.complete = True
            self._add(node)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._start(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop().complete = True
            self._key.pop()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._document(event)

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._fail(
                self._place(event),
                "A second document begins here.",
                "Write one manifest in one file, and remove this `---`.",
            )

    def _start(self, event: Any) -> None:
        if len(self._open) >= DEEPEST:
            message = f"This is nested more than {DEEPEST} levels deep."
            self._fail(self._place(event), message, "Is a bracket too many, or not closed?")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        tag = None if event.tag in (None, "!") else event.tag
        node = Node("mapping" if is_mapping else "list", self._place(event), tag=tag)
        node.pairs, node.items = ([], _NONE) if is_mapping else (_NONE, [])
        self._anchored(event, node)
        self._add(node)
        self._open.append(node)
        self._key.append(None)

    def _anchored(self, event: Any, node: Node) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = node

    def _alias(self, event: Any) -> None:
        target = self._anchors.get(event.anchor)
        if target is None:
            self._fail(
                self._place(event),
                f"*{event.anchor} stands for nothing: no value above has the anchor "
                f"&{event.anchor}.",
                "Put it in quotes if text that begins with * is meant.",
            )
        elif not target.complete:
            message = f"*{event.anchor} stands for what it is itself a part of."
            self._fail(self._place(event), message, "Write the value out.")
        self._add(Node("alias", self._place(event), target=target))

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if parent.kind == "list":
            parent.items.append(node)
        elif self._key[-1] is None:
            self._key[-1] = node
        else:
            parent.pairs.append((self._key[-1], node))
            self._key[-1] = None

    def _place(self, event: Any) -> Place:
        return self._file, event.start_mark.line + 1, event.start_mark.column + 1

    def _fail(self, place: Place, message: str, hint: str) -> None:
        self._faults.add(place, (), message, hint)
        self._faults.raise_if_any()


def merged(node: Node) -> Iterator[tuple[Node, Node]]:
    """Yield the pairs of mappings that `node` takes in as the value of a `<<` key.

    Raises TypeError when it is not a mapping, nor a list of mappings.
    """
    source = node.resolved()
    if source.kind == "mapping":
        yield from source.pairs
    elif source.kind == "list":
        for item in source.items:
            if item.resolved().kind != "mapping":
                raise TypeError
            yield from item.resolved().pairs
    else:
        raise TypeError
