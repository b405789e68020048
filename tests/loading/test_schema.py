"""The JSON Schema, as editors see it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from engine.flows import Flow
from engine.hooks import Catalog, load_catalog
from engine.loading import load, schema

MANIFESTS = sorted((Path(__file__).parents[2] / "manifests").glob("*.yaml"))


def properties(part: Any, path: str = "") -> list[tuple[str, Any]]:
    """Return all that describes a key of a manifest, with where it is in the schema."""
    found = []
    if isinstance(part, dict):
        for keyword, value in part.items():
            if keyword == "dependentSchemas":
                continue
            if keyword == "properties":
                found += [(f"{path}.{name}", item) for name, item in value.items()]
            found += properties(value, f"{path}.{keyword}")
    return found


def test_it_is_a_schema_of_2020_12() -> None:
    Draft202012Validator.check_schema(schema())


def test_every_property_has_a_title_and_a_description() -> None:
    definitions = schema()["$defs"]
    for path, item in properties(schema()):
        target = definitions[item["$ref"].rpartition("/")[2]] if "$ref" in item else {}
        described = {**target, **item}
        assert described.get("title"), path
        assert described.get("description"), path


def test_with_a_catalog_it_offers_the_installed_classes(catalog: Catalog) -> None:
    flow = schema(catalog)["$defs"]["flow"]["properties"]["flow_class_name"]
    assert flow["anyOf"][0] == {"enum": list(catalog.names())}
    assert "sample.Echo" in catalog.names()
    Draft202012Validator.check_schema(schema(catalog))
    json.dumps(schema(catalog))
    assert "pattern" in schema()["$defs"]["flow"]["properties"]["flow_class_name"]


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_every_example_is_valid_for_editors_and_for_the_engine(file: Path) -> None:
    Draft202012Validator(schema()).validate(yaml.safe_load(file.read_text()))
    installed = load_catalog(Flow)
    assert load(file, installed, {}).name == file.stem.replace("_", "-")
    Draft202012Validator(schema(installed)).validate(yaml.safe_load(file.read_text()))


def test_all_the_promised_examples_are_there() -> None:
    assert {file.stem for file in MANIFESTS} >= {
        "reverse_number",
        "local_composite",
        "parallel",
        "chain",
    }
