"""The engine's own flow classes, registered as those of any plugin: this one is called `engine`."""

from engine.flows.patterns import BranchingFlow, CircularFlow, ParallelFlow, SequentialFlow
from engine.hooks import hookimpl


@hookimpl
def register_flow_classes() -> list[type]:
    """Return the composites that a manifest alone makes."""
    return [BranchingFlow, CircularFlow, ParallelFlow, SequentialFlow]
