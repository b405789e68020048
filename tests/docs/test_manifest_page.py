"""docs/manifest.md says what a manifest is: every key, every example, every effect."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.flows import Flow
from engine.flows.catalog import DescribedCatalog, describe
from engine.hooks import load_catalog
from engine.loading import load_text, schema
from engine.loading.resolvers import _BUILT_IN
from engine.model.errors import InvalidManifestError
from engine.reconcile.desired import desired
from engine.reconcile.planner import plan
from engine.reconcile.policy import FLOW_FIELDS, MOUNT_FIELDS, docs_table
from engine.reconcile.state import Observed
from tests.conftest import ROOT
from tests.support.markdown import Block, blocks

FILE = ROOT / "docs" / "manifest.md"
PAGE = FILE.read_text()
SCHEMA = schema()
ENVIRONMENT = {"ALICE_JWT": "a.b.c", "API_KEY": "hidden"}

OBJECTS = {
    "The manifest": SCHEMA | SCHEMA["else"],
    "`profiles.<name>`": SCHEMA["properties"]["profiles"]["additionalProperties"],
    "`core`, when it is a mapping": SCHEMA["properties"]["core"],
    "`core.tls`": SCHEMA["properties"]["core"]["properties"]["tls"],
    "`users.<name>`": SCHEMA["$defs"]["user"],
    "`users.<name>.workers`": SCHEMA["$defs"]["workers"],
    "`users.<name>.flows.<endpoint>`": SCHEMA["$defs"]["flow"],
    "`users.<name>.flows.<endpoint>.allow`, when it is a mapping": SCHEMA["$defs"]["flow"][
        "properties"
    ]["allow"],
    "`users.<name>.flows.<endpoint>.retries`": SCHEMA["$defs"]["flow"]["properties"]["retries"],
    "`users.<name>.flows.<endpoint>.subflows.<key>`": SCHEMA["$defs"]["subflow"],
    "`users.<name>.mounts.<name>`": SCHEMA["$defs"]["mount"],
}
TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
}


def rows(heading: str) -> dict[str, list[str]]:
    """Return the cells of the table below a heading, by key."""
    section = PAGE.split(f"\n### {heading}\n")[1].split("\n#")[0]
    lines = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    return {key: rest.split(" | ") for key, rest in lines}


def resolved(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a property's schema with what it refers to in it."""
    name = spec.get("$ref", "").removeprefix("#/$defs/")
    return {**SCHEMA["$defs"][name], **spec} if name else spec


def objects(spec: Mapping[str, Any]) -> Iterator[frozenset[str]]:
    """Yield the keys of each object with fixed keys in a JSON Schema."""
    if isinstance(spec.get("properties"), dict) and "additionalProperties" in spec:
        yield frozenset(spec["properties"])
    for name, value in spec.items():
        if isinstance(value, dict) and name != "dependentSchemas":
            yield from objects(value)


def test_every_object_of_the_schema_has_a_table() -> None:
    assert set(objects(SCHEMA)) == {frozenset(spec["properties"]) for spec in OBJECTS.values()}


@pytest.mark.parametrize("heading", OBJECTS)
def test_every_key_stands_there_with_its_type_and_default(heading: str) -> None:
    spec, table = OBJECTS[heading], rows(heading)
    assert set(table) == set(spec["properties"])
    for key, (kind, default, meaning) in table.items():
        value = resolved(spec["properties"][key])
        types = value["type"] if isinstance(value["type"], list) else [value["type"]]
        assert all(TYPES[name] in kind or f"`{value['default']}`" in kind for name in types), key
        assert ("equired" in meaning) == (key in spec.get("required", ())), key
        if "default" in value:
            assert default == f"`{str(value['default']).lower()}`", key


def catalog() -> DescribedCatalog:
    return DescribedCatalog.from_json(describe(load_catalog(Flow)))


@pytest.mark.parametrize("block", blocks(FILE, "yaml"), ids=lambda block: f"line {block.line}")
def test_every_manifest_is_valid_and_can_be_planned(block: Block, tmp_path: Path) -> None:
    installed = catalog()
    manifest = load_text(block.text, tmp_path / "page.yaml", installed, ENVIRONMENT)
    wanted = desired(
        manifest,
        lambda name: installed.config_of(name).get("subflows_config") or {},
        lambda name: installed.digest(name.partition(".")[0]),
    )
    steps = plan(wanted, Observed(core_ready=False)).steps
    assert {step.name for step in steps if step.kind == "user"} == {
        name for name, user in manifest.users.items() if not user.foreign
    }
    assert ENVIRONMENT["API_KEY"] not in repr(manifest)


def test_the_complete_one_has_every_key_that_goes_with_the_embedded_core() -> None:
    written = set(re.findall(r"(\w+):(?: |$)", blocks(FILE, "yaml")[0].text, re.MULTILINE))
    others = {"jwt", "jwt_file", "address", "tls", "ca", "cert", "key"}
    others |= {"include", "env_file", "profiles"}
    assert {key for spec in OBJECTS.values() for key in spec["properties"]} - others <= written


def test_the_faults_are_told_as_shown() -> None:
    (typo,), (shown,) = blocks(FILE, "yaml-with-faults"), blocks(FILE, "text")
    with pytest.raises(InvalidManifestError) as caught:
        load_text(typo.text, Path("typo.yaml"), catalog(), {})
    *told, total = shown.text.splitlines()
    assert str(caught.value).splitlines() == told
    assert total == f"error: {len(told)} faults in typo.yaml; nothing was changed."


def test_what_a_change_does_is_the_planner_s_own_table() -> None:
    assert docs_table() in PAGE


def test_the_planner_has_an_effect_for_every_field_of_a_flow_and_a_mount() -> None:
    assert set(FLOW_FIELDS) == set(SCHEMA["$defs"]["flow"]["properties"])
    assert set(MOUNT_FIELDS) - {"tree"} == set(SCHEMA["$defs"]["mount"]["properties"])


def test_every_resolver_is_named() -> None:
    assert all(f"${{{name}:" in PAGE for name in _BUILT_IN)


def test_every_block_is_checked() -> None:
    known = {"yaml", "yaml-with-faults", "text"}
    assert {block.language for block in blocks(FILE)} == known
