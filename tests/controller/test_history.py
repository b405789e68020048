"""Generations are kept, told apart, and forgotten when they are too many."""

from pathlib import Path

import pytest

from engine.controller import history
from engine.controller.history import CONVERGED, FAILED, Generation, History
from engine.controller.journal import Journal
from engine.model.errors import NotFoundError


def generation(number: int, text: str = "") -> Generation:
    return Generation("demo", number, 100.0 + number, "/m/demo.yaml", text)


def test_generations_come_back_as_they_were_kept_oldest_first(tmp_path: Path) -> None:
    kept = History(tmp_path)
    for number in (2, 1, 10):
        kept.put(generation(number, f"text {number}"))
    assert kept.all("demo") == [generation(n, f"text {n}") for n in (1, 2, 10)]
    assert kept.newest("demo") == 10
    assert kept.manifests() == ["demo"]
    assert kept.newest("other") == 0


def test_an_unknown_generation_is_told_with_those_that_are_kept(tmp_path: Path) -> None:
    kept = History(tmp_path)
    kept.put(generation(4))
    with pytest.raises(NotFoundError, match=r"no generation 7 of demo\. Kept are: 4\."):
        kept.get("demo", 7)


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 2)
    kept = History(tmp_path)
    for number in (1, 2, 3):
        kept.put(generation(number))
    assert [one.generation for one in kept.all("demo")] == [2, 3]


def test_a_purged_manifest_has_no_history(tmp_path: Path) -> None:
    kept = History(tmp_path)
    kept.put(generation(1))
    kept.forget("demo")
    kept.forget("demo")
    assert kept.manifests() == []


def test_the_journal_keeps_what_was_planned_until_it_converged(tmp_path: Path) -> None:
    kept = History(tmp_path)
    journal = Journal(kept)
    journal.note(result=CONVERGED)
    assert kept.manifests() == []

    journal.begin(generation(1))
    journal.note(steps=("+ create",))
    journal.note(result=FAILED, message="out of luck")
    journal.note(steps=("+ create", "+ the rest"))
    assert kept.get("demo", 1).result == FAILED
    journal.note(result=CONVERGED, message="")
    journal.note(steps=("~ drifted later",), result=FAILED, message="out of luck again")
    (found,) = kept.all("demo")
    assert (found.steps, found.result, found.message) == (
        ("+ create", "+ the rest"),
        CONVERGED,
        "",
    )


def test_a_journal_goes_on_with_what_an_earlier_engine_began(tmp_path: Path) -> None:
    kept = History(tmp_path)
    kept.put(generation(3))
    journal = Journal(kept)
    journal.resume("demo", 3)
    journal.note(result=CONVERGED)
    assert kept.get("demo", 3).result == CONVERGED


def test_a_damaged_file_costs_only_its_generation(tmp_path: Path) -> None:
    kept = History(tmp_path)
    kept.put(generation(1))
    kept.put(generation(2))
    next(tmp_path.glob("demo/*2.json")).write_text('{"manifest": ')
    assert [one.generation for one in kept.all("demo")] == [1]
