"""YAML to Manifest: the only place that knows omegaconf, jsonschema and yaml. See README.md."""

from engine.loading.configuration import as_yaml, configuration
from engine.loading.contents import Contents
from engine.loading.editors import editor_schema
from engine.loading.load import Loaded, load, load_composition, load_text, variables
from engine.loading.schema import schema
from engine.loading.starter import SCHEMA_FILE, starter
from engine.loading.together import check_together, load_all

__all__ = [
    "SCHEMA_FILE",
    "Contents",
    "Loaded",
    "as_yaml",
    "check_together",
    "configuration",
    "editor_schema",
    "load",
    "load_all",
    "load_composition",
    "load_text",
    "schema",
    "starter",
    "variables",
]
