"""Broken manifests, each with the exact lines that a user reads."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.hooks import Catalog
from engine.loading import load, load_text
from engine.model.errors import InvalidManifestError

FAULTS = sorted((Path(__file__).parent / "faults").glob("*.yaml"))


def faults_of(file: Path, catalog: Catalog, environment: Mapping[str, str]) -> str:
    with pytest.raises(InvalidManifestError) as caught:
        load_text(file.read_bytes(), Path(file.name), catalog, environment)
    return str(caught.value) + "\n"


def test_there_are_at_least_fifty_of_them() -> None:
    assert len(FAULTS) >= 50


@pytest.mark.parametrize("file", FAULTS, ids=lambda file: file.stem)
def test_a_broken_manifest_says_what_is_wrong(
    file: Path, catalog: Catalog, environment: dict[str, str]
) -> None:
    assert faults_of(file, catalog, environment) == file.with_suffix(".expected").read_text()


@pytest.mark.parametrize("file", FAULTS, ids=lambda file: file.stem)
def test_no_fault_shows_a_secret(file: Path, catalog: Catalog, environment: dict[str, str]) -> None:
    assert environment["SECRET"] not in faults_of(file, catalog, environment)


@pytest.mark.parametrize("file", FAULTS, ids=lambda file: file.stem)
def test_faults_are_in_the_order_of_the_file_and_each_is_one_line(
    file: Path, catalog: Catalog, environment: dict[str, str]
) -> None:
    with pytest.raises(InvalidManifestError) as caught:
        load(file, catalog, environment)
    places = [(fault.line, fault.column) for fault in caught.value.faults]
    assert places == sorted(places)
    assert all(line >= 1 and column >= 1 for line, column in places)
    assert len(str(caught.value).splitlines()) == len(places)
