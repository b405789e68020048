"""Manifests that are put together of several files."""

from pathlib import Path

import pytest

from engine.hooks import Catalog
from engine.loading import Contents, Loaded, load_composition
from engine.model.composition import Composition
from engine.model.errors import InvalidManifestError
from engine.model.manifest import AllowSpec

BASE = """\
apiVersion: engine/v1
name: shop
users:
  user0:
    workers: {dispatch: 1, get_instance: 4}
    flows:
      echo: {flow_class_name: sample.Echo, allow: [user0], config_overrides: {a: 1, b: {c: 2}}}
"""
FLOW = "{flow_class_name: sample.Echo}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**texts: str) -> None:
    for name, text in texts.items():
        file = Path(name.replace("__", "/") + ".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def loaded(
    catalog: Catalog,
    *layers: str,
    profiles: tuple[str, ...] = (),
    env_files: tuple[str, ...] = (),
    contents: Contents | None = None,
    **environment: str,
) -> Loaded:
    composition = Composition("base.yaml", layers, profiles, env_files)
    return load_composition(composition, catalog, environment, contents or Contents())


def faults_of(catalog: Catalog, *layers: str, **keywords: tuple[str, ...]) -> list[str]:
    with pytest.raises(InvalidManifestError) as caught:
        loaded(catalog, *layers, **keywords)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


def test_layers_are_laid_over_mapping_into_mapping_all_else_replaces(
    folder: Path, catalog: Catalog
) -> None:
    write(
        base=BASE,
        one="users: {user0: {workers: {dispatch: {coflows_dispatch: 2}}}, user1: {}}",
        two="users: {user0: {flows: {echo: {allow: [any], config_overrides: {b: {d: 3}}}}}}",
    )
    user = loaded(catalog, "one.yaml", "two.yaml").manifest.users["user0"]
    assert (user.workers.dispatch, user.workers.get_instance) == ({"coflows_dispatch": 2}, 4)
    assert user.flows["echo"].allow == AllowSpec(("any",), ("any",))
    assert user.flows["echo"].config_overrides == {"a": 1, "b": {"c": 2, "d": 3}}


def test_later_layers_count_and_one_without_content_changes_nothing(
    folder: Path, catalog: Catalog
) -> None:
    write(base=BASE, one="name: first", two="name: second", three="# nothing", four="---\n")
    assert loaded(catalog, "one.yaml", "two.yaml").manifest.name == "second"
    assert loaded(catalog, "two.yaml", "one.yaml", "three.yaml", "four.yaml").manifest.name == (
        "first"
    )


def test_a_file_stands_over_what_it_includes_files_and_folders(
    folder: Path, catalog: Catalog
) -> None:
    write(
        base=f"include: [shared/common.yaml, parts]\n{BASE}",
        shared__common="include: more.yaml\nname: common\nusers: {user0: {workers: {dispatch: 9}}}",
        shared__more="users: {user1: {workers: {dispatch: 7}}}",
        parts__a="users: {user1: {workers: {dispatch: 8}}}",
        parts__b="users: {user2: {}}",
    )
    (folder / "parts" / "notes.txt").write_text("no: [manifest")
    (folder / "parts" / ".#a.yaml").write_text("no: [manifest")
    manifest = loaded(catalog).manifest
    assert manifest.name == "shop"
    assert set(manifest.users) == {"user0", "user1", "user2"}
    assert manifest.users["user0"].workers.dispatch == {"coflows_dispatch": 1}
    assert manifest.users["user1"].workers.dispatch == {"coflows_dispatch": 8}


def test_what_is_included_twice_counts_where_it_is_first(folder: Path, catalog: Catalog) -> None:
    write(
        base=f"include: [one.yaml, two.yaml]\n{BASE}",
        one="include: common.yaml\nusers: {user1: {workers: {dispatch: 1}}}",
        two="include: common.yaml",
        common="users: {user1: {workers: {dispatch: 5}}}",
    )
    assert loaded(catalog).manifest.users["user1"].workers.dispatch == {"coflows_dispatch": 1}


def test_a_thousand_fragments_are_one_manifest(folder: Path, catalog: Catalog) -> None:
    write(base=f"include: parts\n{BASE}")
    for number in range(1000):
        user, flow = f"user{number % 100}", f"flow{number}"
        write(**{f"parts__{number:03}": f"users: {{{user}: {{flows: {{{flow}: {FLOW}}}}}}}"})
    contents = Contents()
    manifest = loaded(catalog, contents=contents).manifest
    assert sum(len(user.flows) for user in manifest.users.values()) == 1001
    assert manifest.places["users.user7.flows.flow907"][0] == str(folder / "parts" / "907.yaml")
    assert loaded(catalog, contents=Contents(contents.manifests)).manifest == manifest


def test_a_layer_that_is_also_included_is_still_on_top(folder: Path, catalog: Catalog) -> None:
    write(base=f"include: one.yaml\n{BASE}", one="name: one")
    assert loaded(catalog).manifest.name == "shop"
    assert loaded(catalog, "one.yaml").manifest.name == "one"


def test_a_profile_is_laid_over_its_file_and_below_layers(folder: Path, catalog: Catalog) -> None:
    profiles = """\
profiles:
  dev: {name: shop-dev, users: {user0: {workers: {get_instance: 1}}}}
  idle: {users: {user0: {workers: {dispatch: 0}, flows: {}}}}
  empty:
"""
    write(base=BASE + profiles, layer="name: layered")
    assert loaded(catalog).manifest.name == "shop"
    dev = loaded(catalog, profiles=("dev", "empty")).manifest
    assert (dev.name, dev.users["user0"].workers.get_instance) == ("shop-dev", 1)
    assert loaded(catalog, "layer.yaml", profiles=("dev",)).manifest.name == "layered"


def test_references_lead_from_file_to_file(folder: Path, catalog: Catalog) -> None:
    write(
        base=BASE,
        layer="users: {user1: {workers: {get_instance: '${users.user0.workers.get_instance}'}}}",
    )
    assert loaded(catalog, "layer.yaml").manifest.users["user1"].workers.get_instance == 4


def test_paths_begin_at_the_folder_of_the_file_that_has_them(
    folder: Path, catalog: Catalog
) -> None:
    write(
        base="include: keys/core.yaml\napiVersion: engine/v1\nusers: {user0: {jwt_file: token}}",
        keys__core="core: {address: 'https://core.example.org:1', tls: {ca: ca.pem}}",
        other__layer="users: {user1: {jwt_file: ../token}}",
    )
    manifest = loaded(catalog, "other/layer.yaml").manifest
    assert manifest.core.tls.ca == str(folder / "keys" / "ca.pem")
    assert manifest.users["user0"].jwt_file == str(folder / "token")
    assert manifest.users["user1"].jwt_file == str(folder / "token")


def test_a_fault_is_where_the_value_was_written(folder: Path, catalog: Catalog) -> None:
    write(
        base=f"include: parts\n{BASE}profiles:\n  bad:\n    users:\n      user0: {{flws: {{}}}}\n",
        parts__a="users:\n  user1:\n    workers: {dispatch: many}\n",
        layer="users:\n  user0:\n    flows:\n      echo:\n        singleton: 3\n",
    )
    assert [line.partition(" ")[0] for line in faults_of(catalog, "layer.yaml")] == [
        "parts/a.yaml:3:25:",
        "layer.yaml:5:20:",
    ]
    assert faults_of(catalog, profiles=("bad",))[0] == (
        "base.yaml:12:15: users.user0.flws: There is no such key. Did you mean flows?"
    )


def test_places_of_a_manifest_name_its_files(folder: Path, catalog: Catalog) -> None:
    write(base=BASE, layer="users: {user0: {flows: {more: {flow_class_name: sample.Echo}}}}")
    places = loaded(catalog, "layer.yaml").manifest.places
    assert places["users.user0.flows.echo"] == (str(folder / "base.yaml"), 7, 7)
    assert places["users.user0.flows.more"] == (str(folder / "layer.yaml"), 1, 25)


def test_env_files_give_variables_and_the_environment_goes_before_them(
    folder: Path, catalog: Catalog
) -> None:
    (folder / "dev.env").write_text(
        '# comment\n\nPOINT=one # the first\nexport KEY=\'s3cr3t # all\'\nQ="a\\nb\\""\nEMPTY=\n'
    )
    (folder / "more.env").write_text("POINT = no\n".replace(" ", "") + "POINT=two\n")
    text = BASE.replace("{a: 1,", "{a: '${oc.env:KEY}', q: '${oc.env:Q}',").replace(
        "name: shop", "env_file: dev.env\nname: shop-${oc.env:POINT}${oc.env:EMPTY}"
    )
    write(base=text)
    found = loaded(catalog)
    assert found.manifest.name == "shop-one"
    assert found.environment == {
        "POINT": "one",
        "KEY": "s3cr3t # all",
        "Q": 'a\nb"',
        "EMPTY": "",
    }
    assert "s3cr3t" not in repr(found.manifest)
    assert loaded(catalog, env_files=("more.env",)).manifest.name == "shop-two"
    assert loaded(catalog, env_files=("more.env",), POINT="x").manifest.name == "shop-x"


def test_what_an_engine_inherits_goes_behind_the_env_files(folder: Path, catalog: Catalog) -> None:
    (folder / "a.env").write_text("WHO=file")
    write(base=BASE.replace("name: shop", "env_file: a.env\nname: ${oc.env:WHO}-${oc.env:HOST}"))
    found = load_composition(
        Composition("base.yaml"), catalog, {}, Contents(), inherited={"WHO": "shell", "HOST": "h"}
    )
    assert found.manifest.name == "file-h"


def test_contents_know_what_was_read_and_when_it_changes(folder: Path, catalog: Catalog) -> None:
    (folder / "a.env").write_text("A=1")
    write(base=f"include: [parts, one.yaml]\nenv_file: a.env\n{BASE}", one="{}", parts__a="{}")
    contents = Contents()
    loaded(catalog, contents=contents)
    assert {Path(file).name for file in contents.files} == {
        "base.yaml",
        "one.yaml",
        "a.yaml",
        "a.env",
    }
    assert contents.folders == {str(folder / "parts")}
    assert not contents.changed()
    (folder / "one.yaml").write_text("{}")
    assert not contents.changed(), "content decides, not the time of the save"
    for change in (
        lambda: (folder / "parts" / "b.yaml").write_text("{}"),
        lambda: (folder / "a.env").write_text("A=2"),
        lambda: (folder / "one.yaml").unlink(),
        lambda: (folder / "base.yaml").write_text(BASE),
    ):
        contents = Contents()
        loaded(catalog, contents=contents)
        change()
        assert contents.changed()
        if not (folder / "one.yaml").exists():
            write(one="{}")


def test_contents_know_what_could_not_be_read_too(folder: Path, catalog: Catalog) -> None:
    write(base=f"include: one.yaml\n{BASE}")
    contents = Contents()
    with pytest.raises(InvalidManifestError):
        loaded(catalog, contents=contents)
    write(one="{}")
    assert contents.changed()


def test_a_manifest_is_loaded_again_from_the_texts_it_was_made_of(
    folder: Path, catalog: Catalog
) -> None:
    write(base=f"include: parts\n{BASE}", parts__a="users: {user1: {}}", layer="name: layered")
    contents = Contents()
    before = loaded(catalog, "layer.yaml", contents=contents).manifest
    for file in folder.rglob("*.yaml"):
        file.unlink()
    again = loaded(catalog, "layer.yaml", contents=Contents(contents.manifests)).manifest
    assert again == before
