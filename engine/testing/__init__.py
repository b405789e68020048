"""The kit shipped to plugin authors: what their tests need, and nothing the engine itself uses.

`ports` has worlds for flows that live in memory, with no core behind them.
"""

from engine.testing.ports import LocalPort, RecordingPort

__all__ = ["LocalPort", "RecordingPort"]
