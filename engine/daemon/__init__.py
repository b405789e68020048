"""The background process: one per ENGINE_HOME, its lock, and its control API."""
