"""Every example manifest is valid, planned, applied, answers, and is taken down."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.engine import EngineCommand

MANIFESTS = sorted((ROOT / "manifests").glob("*.yaml"))


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_an_example_works_from_validation_to_its_end(engine: EngineCommand, file: Path) -> None:
    assert engine.json("validate", file) == []
    assert engine("plan", file, "--detailed-exitcode", expect=2).stdout
    engine("apply", file)
    (manifest,) = engine.status()["manifests"]
    assert manifest["converged"] is True
    mounts = [(u, m) for u, user in manifest["users"].items() for m in user["mounts"]]
    assert mounts, "an example without a mount cannot be tried"
    for user, mount in mounts:
        answer = json.loads(engine("call", f"{user}/{mount}", example_input(file)).stdout)
        assert answer and "error" not in answer
    assert engine.json("plan", file)["steps"] == []
    engine("down", manifest["name"])
    assert engine.status()["manifests"] == []


def example_input(file: Path) -> str:
    """Return the input of the `engine call` that the manifest's own comment shows."""
    for line in file.read_text().splitlines():
        if line.startswith("#") and "engine call" in line:
            return line.split("'")[1]
    raise AssertionError(f"{file.name} does not say how to call it")
