"""YAML to Manifest: the only place that knows omegaconf, jsonschema and yaml. See README.md."""

from engine.loading.configuration import as_yaml, configuration
from engine.loading.contents import Contents
from engine.loading.load import Loaded, load, load_composition, load_text, variables
from engine.loading.schema import schema
from engine.loading.starter import starter
from engine.loading.together import check_together, load_all

__all__ = [
    "Contents",
    "Loaded",
    "as_yaml",
    "check_together",
    "configuration",
    "load",
    "load_all",
    "load_composition",
    "load_text",
    "schema",
    "starter",
    "variables",
]
