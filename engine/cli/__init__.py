"""The command line: arguments in, text or JSON and an exit code out. It decides nothing else.

Commands import what is heavy (YAML, JSON Schema, plugins, gRPC) only when they run, because
`engine status` has 0.3 seconds in all; `tests/cli/test_imports.py` holds it.
"""
