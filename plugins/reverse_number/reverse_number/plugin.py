"""The plugin: what the entry point in the group `colink_engine` names."""

from engine.hooks import hookimpl
from reverse_number.flows import (
    ReverseNumberAtomicFlow,
    ReverseNumberSequentialFlow,
    ReverseNumbersFlow,
)


@hookimpl
def register_flow_classes() -> list[type]:
    """Return the flows that can be served."""
    return [ReverseNumberAtomicFlow, ReverseNumberSequentialFlow, ReverseNumbersFlow]
