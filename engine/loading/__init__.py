"""YAML to Manifest: the only place that knows omegaconf, jsonschema and yaml. See README.md."""

from engine.loading.load import load, load_text, variables
from engine.loading.schema import schema
from engine.loading.starter import starter
from engine.loading.together import check_together, load_all

__all__ = ["check_together", "load", "load_all", "load_text", "schema", "starter", "variables"]
