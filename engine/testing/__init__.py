"""The kit shipped to plugin authors: what their tests need, and nothing the engine itself uses.

`ports` has worlds for flows that live in memory, with no core behind them; `network` users on a
real core; `scripts` flows that fail as told; `fixtures` the first two for pytest.
"""

from engine.testing.network import Network, User
from engine.testing.ports import LocalPort, RecordingPort
from engine.testing.scripts import ScriptedFlow, answers, raises, silent

__all__ = [
    "LocalPort",
    "Network",
    "RecordingPort",
    "ScriptedFlow",
    "User",
    "answers",
    "raises",
    "silent",
]
