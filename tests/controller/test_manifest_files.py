"""The files of a manifest while others ask for something else of them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.controller.applied import AppliedRecord
from engine.controller.manifest_files import ManifestFiles
from engine.flows import Flow
from engine.flows.catalog import DescribedCatalog, describe
from engine.hooks import load_catalog
from engine.model.composition import Composition
from engine.model.errors import InvalidManifestError
from engine.model.manifest import Manifest

TEXT = "apiVersion: engine/v1\nname: m\nusers: {user0: {}}\n"
SERVING = """\
apiVersion: engine/v1
name: m
users: {user0: {flows: {f: {flow_class_name: reverse_number.ReverseNumberAtomicFlow}}}}
"""
NOTHING: Mapping[str, str] = {}


@pytest.fixture(scope="module")
def catalog() -> DescribedCatalog:
    return DescribedCatalog.from_json(describe(load_catalog(Flow)))


def files_of(file: Path) -> ManifestFiles:
    return ManifestFiles(AppliedRecord("m", str(file), 0, ""), NOTHING, NOTHING)


def nobody() -> list[Manifest]:
    return []


def test_a_manifest_that_was_never_read_can_be_recorded() -> None:
    record = files_of(Path("/m.yaml")).record(0, ("user0",), "release")
    assert record == AppliedRecord("m", "/m.yaml", 0, "", ("user0",), "release")
    assert record.texts == {}


async def test_what_is_asked_for_while_files_are_read_is_read(
    tmp_path: Path, catalog: DescribedCatalog
) -> None:
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    for file in (before, after):
        file.write_text(TEXT)
    files = files_of(before)
    reading = asyncio.create_task(files.read(catalog, nobody))
    await asyncio.sleep(0)
    files.replace(Composition(str(after)), NOTHING)
    assert (await reading).manifest.file == str(after)
    assert files.take()
    assert files.generation(1, 0.0).text == files.record(1, (), "").text == TEXT


async def test_what_another_manifest_has_is_a_fault_until_it_gives_it_up(
    tmp_path: Path, catalog: DescribedCatalog
) -> None:
    file, other = tmp_path / "m.yaml", tmp_path / "other.yaml"
    file.write_text(SERVING)
    other.write_text(SERVING.replace("name: m", "name: other"))
    owner = ManifestFiles(AppliedRecord("other", str(other), 0, ""), NOTHING, NOTHING)
    claimed = [(await owner.read(catalog, nobody)).manifest]
    files = files_of(file)
    with pytest.raises(InvalidManifestError, match=r"other\.yaml.*manifest other.*has it, too"):
        await files.read(catalog, lambda: claimed)
    assert await files.changed(catalog), "it is looked at again, although nothing was saved"
    claimed.clear()
    await files.read(catalog, lambda: claimed)
    assert not await files.changed(catalog)


async def test_that_its_file_is_gone_or_names_another_is_told(
    tmp_path: Path, catalog: DescribedCatalog
) -> None:
    file = tmp_path / "m.yaml"
    files = files_of(file)
    with pytest.raises(InvalidManifestError, match=r"The file is gone; .*engine down m"):
        await files.read(catalog, nobody)
    file.write_text(TEXT.replace("name: m", "name: n"))
    with pytest.raises(InvalidManifestError, match=r"m\.yaml:2:1: name: .*applied as m and now"):
        await files.read(catalog, nobody)
