"""KeyInterface: a chain of transformations, and how YAML names them (protocol sheet §10).

In YAML an interface is a mapping with `_target_`. The name after it is looked up in a fixed table
of the classes here (also under their aiflows names); it is never imported.
"""

import copy
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from engine.flows import transformations
from engine.flows.transformations import (
    Data,
    DataTransformation,
    KeyCopy,
    KeyDelete,
    KeyRename,
    KeySelect,
    KeySet,
)
from engine.model.errors import UsageError
from engine.model.message import FlowMessage

Payload = TypeVar("Payload", Data, FlowMessage)
Transformation = Callable[..., Data]


class KeyInterface:
    """Reshapes data: rename, copy, set, then additional transformations, then select, delete.

    Additional transformations are callables that take `data_dict=` and the call's keyword
    arguments, or mappings with `_target_`.
    """

    def __init__(
        self,
        keys_to_rename: Mapping[str, str] | None = None,
        keys_to_copy: Mapping[str, str] | None = None,
        keys_to_set: Mapping[str, Any] | None = None,
        additional_transformations: Sequence[Transformation | Mapping[str, Any]] = (),
        keys_to_select: Sequence[str] = (),
        keys_to_delete: Sequence[str] = (),
    ) -> None:
        self.transformations: list[Transformation] = []
        if keys_to_rename:
            self.transformations.append(KeyRename(keys_to_rename))
        if keys_to_copy:
            self.transformations.append(KeyCopy(keys_to_copy))
        if keys_to_set:
            self.transformations.append(KeySet(keys_to_set))
        self.transformations += [
            build(entry) if isinstance(entry, Mapping) else entry
            for entry in additional_transformations
        ]
        if keys_to_select:
            self.transformations.append(KeySelect(keys_to_select))
        if keys_to_delete:
            self.transformations.append(KeyDelete(keys_to_delete))

    def __call__(self, data: Payload, **context: Any) -> Payload:
        """Return a new dict for a dict; for a FlowMessage replace its data and return the message.

        `context` (such as `src_flow`, `dst_flow`, `goal`) is handed to every transformation.
        """
        if isinstance(data, FlowMessage):
            data.data = self._transform(data.data, context)
            return data
        return self._transform(data, context)

    def _transform(self, data: Data, context: Mapping[str, Any]) -> Data:
        data = copy.deepcopy(data)
        for transformation in self.transformations:
            data = transformation(data_dict=data, **context)
        return data


_MODULES = {
    "KeyRename": "key_rename",
    "KeyCopy": "key_copy",
    "KeySet": "key_set",
    "KeySelect": "key_select",
    "KeyDelete": "key_delete",
    "KeyMatchInput": "key_match_input",
    "EndOfInteraction": "end_of_interaction",
    "RegexFirstOccurrenceExtractor": "regex_extractor_first",
    "Json2Obj": "json",
    "Obj2Json": "json",
    "UnNesting": "unnesting_dict",
    "PrintPreviousMessages": "print_previous_messages",
}


def _table() -> dict[str, Callable[..., Transformation]]:
    table: dict[str, Callable[..., Transformation]] = {}
    for name, module in _MODULES.items():
        kind: type[DataTransformation] = getattr(transformations, name)
        for prefix in ("", "engine.flows.", "aiflows.data_transformations."):
            table[prefix + name] = kind
        table[f"aiflows.data_transformations.{module}.{name}"] = kind
    for prefix in ("", "engine.flows.", "aiflows.interfaces.", "aiflows.interfaces.key_interface."):
        table[prefix + "KeyInterface"] = KeyInterface
    return table


_TARGETS = _table()
_HYDRA = {"_target_", "_recursive_", "_convert_"}


def build(config: Mapping[str, Any]) -> Transformation:
    """Return the interface or transformation that `config`, a mapping with `_target_`, describes.

    Raises UsageError when the target is not in the table or its arguments do not fit.
    """
    target = str(config.get("_target_"))
    kind = _TARGETS.get(target)
    if kind is None:
        name = target.rpartition(".")[2]
        close = difflib.get_close_matches(name, [*_MODULES, "KeyInterface"], n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Known are: {', '.join(_MODULES)}."
        raise UsageError(f"{target} is no known interface or transformation.", hint)
    arguments = {key: value for key, value in config.items() if key not in _HYDRA}
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        raise UsageError(f"The arguments of {target} do not fit: {error}.") from error
    return kind(**arguments)
