"""A real plugin for these tests: an atomic flow, composites, and resolvers."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from engine.flows import AtomicFlow, CompositeFlow, FlowMessage
from engine.hooks import hookimpl


class Echo(AtomicFlow):
    __default_flow_config: ClassVar[dict[str, Any]] = {"name": "Echo", "description": "Echoes."}

    def run(self, input_message: FlowMessage) -> None:
        self.send_message(self.package_output_message(input_message, input_message.data))


class Count(AtomicFlow):
    input_schema: ClassVar = {"text": "string"}
    output_schema: ClassVar = {"words": "integer"}

    __default_flow_config: ClassVar[dict[str, Any]] = {"name": "Count", "description": "Counts."}

    def run(self, input_message: FlowMessage) -> None:
        output = {"words": len(input_message.data["text"].split())}
        self.send_message(self.package_output_message(input_message, output))


class Pair(CompositeFlow):
    __default_flow_config: ClassVar[dict[str, Any]] = {
        "name": "Pair",
        "description": "Asks two others.",
        "subflows_config": {
            "left": {"user_id": "local", "flow_endpoint": "echo"},
            "right": {"user_id": "local"},
        },
    }

    def run(self, input_message: FlowMessage) -> None:
        self.ask_subflow("left", input_message.data, caller=input_message)


class Ring(CompositeFlow):
    __default_flow_config: ClassVar[dict[str, Any]] = {
        "name": "Ring",
        "description": "Asks the next one.",
        "subflows_config": {"next": {"user_id": "local", "flow_endpoint": "ring"}},
    }

    def run(self, input_message: FlowMessage) -> None:
        self.ask_subflow("next", input_message.data, caller=input_message)


def _fails(*arguments: Any) -> Any:
    raise ValueError(f"cannot use {arguments}")


@hookimpl
def register_flow_classes() -> list[type]:
    return [Count, Echo, Pair, Ring]


@hookimpl
def register_resolvers() -> Mapping[str, Callable[..., Any]]:
    return {
        "sample.double": lambda number: 2 * number,
        "sample.fails": _fails,
        "sample.object": lambda: object(),
    }
