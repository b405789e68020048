"""The parts of the benchmark that measure nothing: arithmetic, the page, the command line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.flows import Flow
from engine.hooks import load_catalog
from engine.loading import load_text
from tests.benchmarks import manifests
from tests.benchmarks.__main__ import PAGE, main
from tests.benchmarks.figures import Figures, duration_text, rate_text, times_better
from tests.benchmarks.measures import MEASURES, NAMES, UNMEASURED, Goal, Measure
from tests.benchmarks.page import Run, goal_text, missed, render
from tests.conftest import ROOT

ROUND_TRIP = Measure("same_user", "round trip", Goal(0.0025, 10), by_stock=True)
RATE = Measure("throughput", "parallel flow", Goal(800, 14), per_second=True, by_stock=True)


def run(ours: dict[str, list[float]], stock: dict[str, list[float]]) -> Run:
    return Run(ours, stock, "the command", "2024-01-31", "2 cores")


def test_figures_are_the_median_and_the_quartiles() -> None:
    assert Figures.of([5, 1, 2, 4, 3]) == Figures(3, 2, 4, 5)
    assert Figures.of([7.0]) == Figures(7.0, 7.0, 7.0, 1)


def test_better_is_shorter_or_more_per_second() -> None:
    assert times_better(Figures.of([2]), Figures.of([10]), per_second=False) == 5
    assert times_better(Figures.of([10]), Figures.of([2]), per_second=True) == 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0025, "2.50 ms"), (0.0255, "25.5 ms"), (0.5, "500 ms"), (1.5, "1.50 s"), (17.0, "17.0 s")],
)
def test_durations_have_the_digits_that_count(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_rates_have_the_digits_that_count() -> None:
    assert rate_text(1234.4) == "1,234/s"


def test_a_goal_is_met_when_both_its_limit_and_its_ratio_are() -> None:
    assert missed(ROUND_TRIP, run({"same_user": [0.002]}, {"same_user": [0.025]})) == []
    assert missed(RATE, run({"throughput": [900.0]}, {"throughput": [58.0]})) == []


def test_what_is_missed_of_a_goal_is_told() -> None:
    slow = run({"same_user": [0.005]}, {"same_user": [0.025]})
    assert missed(ROUND_TRIP, slow) == ["5.00 ms instead of ≤ 2.5 ms", "5.00× instead of 10×"]
    alone = run({"same_user": [0.002]}, {})
    assert missed(ROUND_TRIP, alone) == ["no stock aiflows to compare with"]
    few = run({"throughput": [700.0]}, {"throughput": [10.0]})
    assert missed(RATE, few) == ["700/s instead of ≥ 800/s"]


def test_the_page_has_a_row_for_each_measure_that_was_taken() -> None:
    page = render(run({"same_user": [0.002, 0.003, 0.004], "demo": [2.0]}, {"same_user": [0.03]}))

    cells = ["≤ 2.5 ms, 10×", "30.0 ms (once)", "3.00 ms (2.50 ms – 3.50 ms; n = 3)", "10.0×", "no"]
    assert f"| round trip, atomic flow, same user | {' | '.join(cells)} |" in page
    assert (
        "| `engine apply` of the demo from nothing | ≤ 3 s | – | 2.00 s (once) | – | yes |" in page
    )
    assert "1,000 endpoints" not in page


def test_the_page_says_how_it_was_made_and_what_is_not_met() -> None:
    page = render(run({"same_user": [0.003], "demo": [2.0]}, {"same_user": [0.03]}))

    assert "- Command: `the command`\n- Date: 2024-01-31\n- Machine: 2 cores\n" in page
    missed_goals = page.partition("## Goals that are not met")[2].partition("##")[0]
    assert "- round trip, atomic flow, same user: 3.00 ms instead of ≤ 2.5 ms.\n" in missed_goals
    assert "demo" not in missed_goals
    assert all(f"- {title}: not measured." in missed_goals for title, _ in UNMEASURED)


def test_the_page_in_docs_was_written_by_this_version() -> None:
    page = PAGE.read_text()
    rendered = render(run({name: [1.0] for name in NAMES}, {name: [1.0] for name in NAMES}))

    of_the_run = re.compile(r"^\|.*\n|^- (Command|Date|Machine): .*\n|^- .* instead of .*\n", re.M)
    assert of_the_run.sub("", page) == of_the_run.sub("", rendered)
    for measure in MEASURES:
        assert f"| {measure.title} | {goal_text(measure)} |" in page


def test_the_manifests_are_valid() -> None:
    catalog = load_catalog(Flow)
    for text in (manifests.messages(), manifests.many("many", 10), manifests.many("many", 4, "x")):
        load_text(text, Path("manifest.yaml"), catalog, {})


@pytest.mark.parametrize("flows", [1_000, 10_000])
def test_a_fleet_is_valid(flows: int) -> None:
    manifest = load_text(manifests.fleet(flows), Path("f.yaml"), load_catalog(Flow), {})
    assert len(manifest.users) == 100
    assert sum(len(user.flows) for user in manifest.users.values()) == flows


def test_saving_changes_one_flow() -> None:
    old, new = manifests.many("many", 100), manifests.many("many", 100, "changed")
    assert new != old
    assert new.count("config_overrides") == 1


def test_help_names_every_measure() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in NAMES)


def test_an_unknown_measure_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["speed"])
    assert exit_.value.code == 2
    assert "there is no measure speed" in capsys.readouterr().err
