"""Flows from plain functions: `@flow` makes a flow class of a typed function.

The arguments are the message's data, by name; the annotations say what they must be, and become the
class's schemas. What the function returns is the answer.
"""

import copy
import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from engine.flows.config import Config
from engine.flows.flow import AtomicFlow
from engine.model.errors import PluginError
from engine.model.message import FlowMessage

RESULT = "result"
"""The key of an answer that is no object of its own."""
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLAIN = (type(None), bool, int, float, str)


class FunctionFlow(AtomicFlow):
    """A flow whose `run` is a function. Its subclasses are made by `flow`.

    `function` is the function itself, for tests and for other code; `arguments` is the type of its
    arguments.
    """

    function: ClassVar[Callable[..., Any]]
    arguments: ClassVar[type[msgspec.Struct]]

    def run(self, input_message: FlowMessage) -> None:
        """Call the function with the message's data and answer with what it returns."""
        self._answer(input_message, type(self).function(**self._arguments(input_message)))

    def _arguments(self, input_message: FlowMessage) -> dict[str, Any]:
        given = msgspec.convert(input_message.data, self.arguments)
        return {name: getattr(given, name) for name in self.arguments.__struct_fields__}

    def _answer(self, input_message: FlowMessage, result: Any) -> None:
        data = msgspec.to_builtins(_whole(result), str_keys=True)
        if data is None:
            data = {}
        elif not isinstance(data, dict):
            data = {RESULT: data}
        self.send_message(self.package_output_message(input_message, data))


class AsyncFunctionFlow(FunctionFlow):
    """The same for a coroutine function."""

    async def run(self, input_message: FlowMessage) -> None:  # type: ignore[override]
        """Await the function with the message's data and answer with what it returns."""
        self._answer(input_message, await type(self).function(**self._arguments(input_message)))


def flow(function: Callable[..., Any]) -> type[FunctionFlow]:
    """Return a flow class that answers a message with what `function` returns for its data.

    Name and description are those of the function; arguments without an annotation may be
    anything, data that is no argument is passed over. An answer that is no object is put under
    `result`, None is an empty one. Raises PluginError for a function that cannot be one.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        arguments = _arguments_type(function, hints)
        input_schema = schema_of(arguments)
        output_schema = _output_schema(hints.get("return", Any))
    except (TypeError, NameError) as error:
        raise PluginError(
            f"{function.__module__}.{function.__qualname__} cannot be a flow: {error}.",
            "Its arguments and its result are JSON data, dataclasses, or msgspec Structs.",
        ) from error
    name = function.__name__
    documentation = inspect.cleandoc(function.__doc__ or "")
    defaults: Config = {"name": name, "description": documentation.partition("\n")[0]}
    base = AsyncFunctionFlow if inspect.iscoroutinefunction(function) else FunctionFlow
    attributes = {
        "__doc__": documentation,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "function": staticmethod(function),
        "arguments": arguments,
        "input_schema": input_schema,
        "output_schema": output_schema,
        f"_{name.lstrip('_')}__default_flow_config": defaults,
    }
    return type(name, (base,), attributes)


def schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type; TypeError when it has none."""
    schema = msgspec.json.schema(kind)
    reference = schema.get("$ref", "")
    definitions = schema.get("$defs", {})
    name = reference.removeprefix("#/$defs/")
    if name not in definitions:
        return schema
    used = {key: definition for key, definition in definitions.items() if key != name}
    # A type that refers to itself needs its own definition.
    if reference in str(definitions):
        used[name] = definitions[name]
    return {**definitions[name], **({"$defs": used} if used else {})}


def _arguments_type(function: Callable[..., Any], hints: dict[str, Any]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in _NAMED:
            raise TypeError(f"the argument {name} cannot be given by its name")
        kind = hints.get(name, Any)
        if parameter.default is inspect.Parameter.empty:
            fields.append((name, kind))
        else:
            fields.append((name, kind, _default(parameter.default)))
    return msgspec.defstruct(function.__name__, fields, kw_only=True)


def _whole(value: Any) -> Any:
    """Return `value` with dataclasses as dicts of all their fields.

    msgspec leaves fields that it filled with their defaults out of the instance's `__dict__`, and
    then does not find them there.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _whole(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value


def _default(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    return msgspec.field(default_factory=lambda: copy.deepcopy(value))


def _output_schema(kind: Any) -> dict[str, Any] | None:
    if kind is Any:
        return None
    if kind is type(None):
        return {"type": "object"}
    schema = schema_of(kind)
    if schema.get("type") == "object":
        return schema
    definitions = schema.pop("$defs", None)
    wrapped = {"type": "object", "properties": {RESULT: schema}, "required": [RESULT]}
    return wrapped if definitions is None else {**wrapped, "$defs": definitions}
