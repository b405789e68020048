"""Manifests that are loaded together."""

from pathlib import Path

import pytest

from engine.hooks import Catalog
from engine.loading import check_together, load_all
from engine.model.composition import Composition
from engine.model.errors import InvalidManifestError
from engine.model.manifest import Manifest

ONE = """\
apiVersion: engine/v1
name: one
users:
  user0:
    flows: {echo: {flow_class_name: sample.Echo}}
    mounts: {m: {flow_endpoint: echo}}
"""


def loaded(files: list[Path], catalog: Catalog) -> list[Manifest]:
    compositions = [Composition(str(file)) for file in files]
    return [found.manifest for found in load_all(compositions, catalog, {})]


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_two_manifests_with_nothing_in_common(tmp_path: Path, catalog: Catalog) -> None:
    files = [
        written(tmp_path, "one.yaml", ONE),
        written(tmp_path, "two.yaml", ONE.replace("user0", "user1").replace("one", "two")),
    ]
    manifests = loaded(files, catalog)
    assert [manifest.name for manifest in manifests] == ["one", "two"]
    check_together(manifests)


def test_one_endpoint_and_one_mount_in_two_manifests(tmp_path: Path, catalog: Catalog) -> None:
    first = written(tmp_path, "one.yaml", ONE)
    second = written(tmp_path, "two.yaml", ONE.replace("name: one", "\nname: two"))
    with pytest.raises(InvalidManifestError) as caught:
        check_together(loaded([first, second], catalog))
    hint = "Only one manifest can own it: remove it from the other."
    assert str(caught.value).splitlines() == [
        f"{second}:6:13: users.user0.flows.echo: {first}:5:13 (manifest one) has it, too. {hint}",
        f"{second}:7:14: users.user0.mounts.m: {first}:6:14 (manifest one) has it, too. {hint}",
    ]


def test_one_name_for_two_manifests(tmp_path: Path, catalog: Catalog) -> None:
    first = written(tmp_path, "one.yaml", ONE)
    second = written(tmp_path, "two.yaml", ONE.replace("user0", "user1"))
    with pytest.raises(InvalidManifestError) as caught:
        check_together(loaded([first, second], catalog))
    assert str(caught.value) == (
        f"{second}:2:1: name: The name one is also that of {first}:2:1. "
        "A manifest owns what it creates by its name: give one of them another."
    )


def test_users_of_one_name_on_two_cores_are_two_users(tmp_path: Path, catalog: Catalog) -> None:
    remote = ONE.replace("name: one", "name: two\ncore: {address: 'https://a.example:1'}").replace(
        "  user0:\n", "  user0:\n    jwt: token\n"
    )
    files = [written(tmp_path, "one.yaml", ONE), written(tmp_path, "two.yaml", remote)]
    check_together(loaded(files, catalog))


def test_all_faults_of_all_files_are_told(tmp_path: Path, catalog: Catalog) -> None:
    files = [
        written(tmp_path, "one.yaml", ONE.replace("flows:", "flow:")),
        tmp_path / "two.yaml",
        written(tmp_path, "three.yaml", ONE.replace("sample.Echo", "broken.Echo")),
    ]
    with pytest.raises(InvalidManifestError) as caught:
        loaded(files, catalog)
    assert [fault.file for fault in caught.value.faults] == [str(file) for file in files]
