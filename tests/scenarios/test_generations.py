"""Every save is a generation that can be looked at, compared, and gone back to."""

import shutil
from pathlib import Path

import pytest

from tests.support.engine import EngineCommand

NUMBER = '{"id": 0, "number": 1234}'


@pytest.fixture
def demo(manifests: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(manifests / "reverse_number.yaml", tmp_path / "reverse_number.yaml"))


def test_an_edit_is_looked_at_and_taken_back(engine: EngineCommand, demo: Path) -> None:
    engine("apply", demo)
    first = demo.read_text()
    demo.write_text(first.replace("dispatch: 1", "dispatch: 2"))
    engine.until(lambda s: s["manifests"][0]["observed_generation"] == 2)

    one, two = engine.json("history")
    assert (one["generation"], two["generation"]) == (1, 2)
    assert {one["result"], two["result"]} == {"Converged"}
    assert [" ".join(step.split()) for step in two["steps"]] == [
        "~ update worker user0/dispatch:coflows_dispatch workers: 1 → 2"
    ]
    assert "+      dispatch: 2" in engine("diff", "reverse-number", "1", "2").stdout
    assert engine("diff").stdout == ""

    engine("rollback")
    assert demo.read_text() == first
    assert [one["generation"] for one in engine.json("history")] == [1, 2, 3]
    assert engine("call", "user1/twice", NUMBER).stdout.strip() == '{"output_number": 1234}'

    engine("down")
    assert len(engine.json("history")) == 3
    engine("apply", demo)
    assert [one["generation"] for one in engine.json("history")][-1] == 4
    engine("down", "--purge", "--yes")
    engine("history", expect=1)


def test_a_rollback_to_what_is_not_valid_any_more_writes_nothing(
    engine: EngineCommand, demo: Path
) -> None:
    engine.environment["POINT"] = "coflows_dispatch"
    plain = demo.read_text()
    demo.write_text(plain.replace("singleton: true", "dispatch_point: ${oc.env:POINT}"))
    engine("apply", demo)
    demo.write_text(plain)
    engine.until(lambda s: s["manifests"][0]["observed_generation"] == 2)

    del engine.environment["POINT"]
    refused = engine("rollback", expect=3)
    assert "POINT" in refused.stderr
    assert demo.read_text() == plain
