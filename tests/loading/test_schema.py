"""The JSON Schema, as editors see it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from engine.flows import Flow
from engine.hooks import Catalog, load_catalog
from engine.loading import SCHEMA_FILE, editor_schema, load, schema, starter

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
    flow = editor_schema(catalog)["$defs"]["flow"]["properties"]["flow_class_name"]
    assert flow["anyOf"][0] == {"enum": list(catalog.names())}
    assert "sample.Echo" in catalog.names()
    Draft202012Validator.check_schema(editor_schema(catalog))
    json.dumps(editor_schema(catalog))
    assert "pattern" in schema()["$defs"]["flow"]["properties"]["flow_class_name"]


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_every_example_is_valid_for_editors_and_for_the_engine(file: Path) -> None:
    Draft202012Validator(schema()).validate(yaml.safe_load(file.read_text()))
    installed = load_catalog(Flow)
    assert load(file, installed, {}).name == file.stem.replace("_", "-")
    Draft202012Validator(editor_schema(installed)).validate(yaml.safe_load(file.read_text()))


def test_all_the_promised_examples_are_there() -> None:
    assert {file.stem for file in MANIFESTS} >= {
        "reverse_number",
        "local_composite",
        "parallel",
        "chain",
    }


def manifest_with(flow: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "engine/v1", "users": {"user0": {"flows": {"f": flow}}}}


def test_for_each_class_it_has_the_keys_that_the_class_declares(catalog: Catalog) -> None:
    made = editor_schema(catalog)
    by_class = {
        part["if"]["properties"]["flow_class_name"]["const"]: part["then"]["properties"]
        for part in made["$defs"]["flow"]["allOf"]
    }
    assert set(by_class) == set(catalog.names())
    declared = by_class["sample.Pair"]["config_overrides"]["properties"]
    assert declared["description"] == {"default": "Asks two others."}
    assert declared["subflows_config"]["properties"]["left"]["properties"]["flow_endpoint"] == {
        "default": "echo"
    }
    assert set(by_class["sample.Pair"]["subflows"]["properties"]) == {"left", "right"}
    validator = Draft202012Validator(made)
    validator.validate(
        manifest_with(
            {"flow_class_name": "sample.Pair", "config_overrides": {"name": "${oc.env:X}", "y": 1}}
        )
    )
    wrong = {"flow_class_name": "sample.Pair", "subflows": {"left": {"user": "user0"}}}
    assert not validator.is_valid(manifest_with(wrong))


def test_for_a_layer_nothing_is_required(catalog: Catalog) -> None:
    part = {"users": {"user0": {"flows": {"f": {"singleton": True}}, "mounts": {"m": {}}}}}
    assert not Draft202012Validator(editor_schema(catalog)).is_valid(part)
    layer = Draft202012Validator(editor_schema(catalog, layer=True))
    layer.validate(part)
    assert not layer.is_valid({"users": {"user0": {"flow": {}}}})


def test_a_file_that_includes_others_need_not_have_it_all() -> None:
    Draft202012Validator(schema()).validate({"include": ["parts"]})
    assert not Draft202012Validator(schema()).is_valid({"name": "x"})


def test_the_starter_names_its_schema_to_editors() -> None:
    first, *_ = starter().splitlines()
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE}"
