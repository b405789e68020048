"""Which manifests are applied survives the engine."""

from pathlib import Path

import pytest

from engine.controller.applied import AppliedRecord, AppliedStore
from engine.model.composition import Composition
from engine.model.errors import PermanentError, TransientError


def test_records_are_there_again_in_the_next_engine(tmp_path: Path) -> None:
    file = tmp_path / "applied.json"
    store = AppliedStore(file)
    store.put(AppliedRecord("b", "/b.yaml", 1, "text", ("user0",)))
    store.put(AppliedRecord("a", "/a.yaml", 2, "text"))
    store.put(AppliedRecord("b", "/b.yaml", 2, "text", ("user0",)))
    assert [(r.name, r.generation, r.users) for r in AppliedStore(file).all()] == [
        ("a", 2, ()),
        ("b", 2, ("user0",)),
    ]


def test_a_dropped_record_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "applied.json"
    store = AppliedStore(file)
    store.put(AppliedRecord("a", "/a.yaml", 1, "text"))
    store.drop("a")
    assert AppliedStore(file).all() == []


def test_a_damaged_file_is_told_and_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "applied.json"
    file.write_text("[{]")
    with pytest.raises(PermanentError, match=r"applied\.json, the list of applied manifests"):
        AppliedStore(file)
    assert file.read_text() == "[{]"


def test_of_what_a_manifest_is_put_together_is_there_again(tmp_path: Path) -> None:
    file = tmp_path / "applied.json"
    record = AppliedRecord(
        "a",
        "/a.yaml",
        1,
        "text",
        parts={"/b.yaml": "more"},
        layers=("/b.yaml",),
        profiles=("dev",),
        env_files=("/c.env",),
    )
    AppliedStore(file).put(record)
    (again,) = AppliedStore(file).all()
    assert again == record
    assert again.composition == Composition("/a.yaml", ("/b.yaml",), ("dev",), ("/c.env",))
    assert again.texts == {"/a.yaml": "text", "/b.yaml": "more"}


def test_a_record_of_an_engine_that_knew_no_layers_is_read(tmp_path: Path) -> None:
    file = tmp_path / "applied.json"
    file.write_text('[{"name": "a", "file": "/a.yaml", "generation": 1, "text": "t", "users": []}]')
    assert AppliedStore(file).all() == [AppliedRecord("a", "/a.yaml", 1, "t")]


def test_a_list_that_cannot_be_written_is_told_and_stays(tmp_path: Path) -> None:
    store = AppliedStore(tmp_path / "gone" / "applied.json")
    with pytest.raises(TransientError, match="cannot be written: No such file or directory"):
        store.put(AppliedRecord("a", "/a.yaml", 1, "text"))
    assert store.all() == []
