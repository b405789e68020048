"""What flow authors import. Names and behaviour are those of aiflows 1.1.1.

`AtomicFlow` and `CompositeFlow` are the classes to derive from; `FlowMessage` is what they are
given and send; `KeyInterface` and the data transformations reshape its data. `SequentialFlow`,
`CircularFlow`, `BranchingFlow` and `ParallelFlow` are made by a manifest alone. `@flow` makes a
flow class of a typed function.
"""

from engine.flows.composite import CompositeFlow, PendingRun
from engine.flows.flow import AtomicFlow, Flow, proxy
from engine.flows.functions import flow
from engine.flows.futures import FlowFuture
from engine.flows.interfaces import KeyInterface, build
from engine.flows.patterns import BranchingFlow, CircularFlow, ParallelFlow, SequentialFlow
from engine.flows.port import FlowPort
from engine.flows.transformations import (
    DataTransformation,
    EndOfInteraction,
    Json2Obj,
    KeyCopy,
    KeyDelete,
    KeyMatchInput,
    KeyRename,
    KeySelect,
    KeySet,
    Obj2Json,
    PrintPreviousMessages,
    RegexFirstOccurrenceExtractor,
    UnNesting,
)
from engine.model.errors import FlowFailedError
from engine.model.message import FlowMessage

__all__ = [
    "AtomicFlow",
    "BranchingFlow",
    "CircularFlow",
    "CompositeFlow",
    "DataTransformation",
    "EndOfInteraction",
    "Flow",
    "FlowFailedError",
    "FlowFuture",
    "FlowMessage",
    "FlowPort",
    "Json2Obj",
    "KeyCopy",
    "KeyDelete",
    "KeyInterface",
    "KeyMatchInput",
    "KeyRename",
    "KeySelect",
    "KeySet",
    "Obj2Json",
    "ParallelFlow",
    "PendingRun",
    "PrintPreviousMessages",
    "RegexFirstOccurrenceExtractor",
    "SequentialFlow",
    "UnNesting",
    "build",
    "flow",
    "proxy",
]
