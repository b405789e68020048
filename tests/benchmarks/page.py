"""The page docs/benchmarks.md: every word of it comes from here, every number from a run. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import (
    Figures,
    duration_text,
    rate_text,
    times_better,
    times_text,
)
from tests.benchmarks.measures import IN_FLIGHT, MEASURES, UNMEASURED, Measure

Values = Mapping[str, Sequence[float]]

_HEAD = """\
# Benchmarks

Written by the benchmark itself: run it to change this page. All rows are of one run on one machine,
stock aiflows 1.1.1 and this project on the same embedded core, one after the other. What calls of
the core cost, with many before them and without: [benchmarks-core.md](benchmarks-core.md).

- Command: `{command}`
- Date: {date}
- Machine: {machine}
"""
_TABLE = """\
| | goal | stock aiflows | ours | ratio | goal met |
|---|---|---|---|---|---|
"""
_HOW = f"""\
## How it is measured

Each cell has the median and, in brackets, the lower and upper quartile and the number of
repetitions. `–` stands where there is no goal, or stock aiflows has nothing of the kind. A goal
with a ratio is met when both its figure and its ratio are reached.

- Round trips: `get_reply_future(…).get_data()` through a proxy that is kept, in one long-lived
  caller process; the flow is a singleton that reverses a number. On both sides every user has a
  dispatch worker, and get_instance workers run, in processes of their own. The first three round
  trips do not count.
- get_instance: `get_flow_instance` makes a new instance of the composite each time; the overrides
  say that both subflows are the other user's.
- Parallel flow: {IN_FLIGHT} threads ask at the same time; the rate is over the whole of a round.
- Apply: the whole command `engine apply`, the start of Python included, until all is converged.
  From nothing: the engine runs, but the manifest's user, his identity and his workers are new.
  Stock aiflows calls `serve_flow` once for each, for a user who is there, in a process that runs.
- List: `print_served_flows` for a user with as many endpoints.
- Save: from before the file is written until the status says that the new generation is converged,
  the quiet period of the watcher included.
- The demo: `engine apply` of `manifests/reverse_number.yaml` in an empty ENGINE_HOME, until its
  mount is there; engine, core and workers are started by it.
"""


@dataclass(frozen=True)
class Run:
    """What one run found, in seconds or per second by the measure's name, and how it was made."""

    ours: Values
    stock: Values
    command: str
    date: str
    machine: str


def render(run: Run) -> str:
    """Return the page."""
    rows = [_row(measure, run) for measure in MEASURES if measure.name in run.ours]
    rows += [f"| {title} | {goal} | – | not measured | – | unknown |" for title, goal in UNMEASURED]
    head = _HEAD.format(command=run.command, date=run.date, machine=run.machine)
    return "\n".join([head, _TABLE + "\n".join(rows) + "\n", _verdict(run), _HOW])


def missed(measure: Measure, run: Run) -> list[str]:
    """Return what of a measure's goal is not reached, in words; nothing when all is."""
    if measure.goal is None:
        return []
    ours, found = Figures.of(run.ours[measure.name]), []
    limit, value = measure.goal.limit, ours.median
    if (value < limit) if measure.per_second else (value > limit):
        found.append(f"{_value(measure, value)} instead of {_limit(measure)}")
    if measure.goal.times is not None:
        if measure.name not in run.stock:
            found.append("no stock aiflows to compare with")
        else:
            times = _times(measure, run)
            if times < measure.goal.times:
                found.append(f"{times_text(times)} instead of {measure.goal.times:g}×")
    return found


def line(measure: Measure, run: Run) -> str:
    """Return a measure as one line for the terminal."""
    sides = [f"ours {_cell(measure, run.ours)}"]
    if measure.name in run.stock:
        sides += [f"stock {_cell(measure, run.stock)}", times_text(_times(measure, run))]
    return f"{measure.name:13} {'; '.join(sides)}"


def _row(measure: Measure, run: Run) -> str:
    ratio = times_text(_times(measure, run)) if measure.name in run.stock else "–"
    met = "–" if measure.goal is None else "no" if missed(measure, run) else "yes"
    cells = [
        measure.title,
        goal_text(measure),
        _cell(measure, run.stock),
        _cell(measure, run.ours),
        ratio,
        met,
    ]
    return f"| {' | '.join(cells)} |"


def goal_text(measure: Measure) -> str:
    """Return a measure's goal as it stands in the table."""
    if measure.goal is None:
        return "–"
    times = "" if measure.goal.times is None else f", {measure.goal.times:g}×"
    return f"{_limit(measure)}{times}"


def _verdict(run: Run) -> str:
    measured = [measure for measure in MEASURES if measure.name in run.ours]
    found = [(measure, missed(measure, run)) for measure in measured]
    lines = [f"- {measure.title}: {'; '.join(words)}." for measure, words in found if words]
    lines += [f"- {title}: not measured." for title, _ in UNMEASURED]
    return "## Goals that are not met\n\n" + "\n".join(lines) + "\n"


def _times(measure: Measure, run: Run) -> float:
    ours, stock = Figures.of(run.ours[measure.name]), Figures.of(run.stock[measure.name])
    return times_better(ours, stock, measure.per_second)


def _cell(measure: Measure, values: Values) -> str:
    if measure.name not in values:
        return "–"
    figures = Figures.of(values[measure.name])
    if figures.count == 1:
        return f"{_value(measure, figures.median)} (once)"
    spread = f"{_value(measure, figures.lower)} – {_value(measure, figures.upper)}"
    return f"{_value(measure, figures.median)} ({spread}; n = {figures.count})"


def _value(measure: Measure, value: float) -> str:
    return rate_text(value) if measure.per_second else duration_text(value)


def _limit(measure: Measure) -> str:
    assert measure.goal is not None
    if measure.per_second:
        return f"≥ {measure.goal.limit:g}/s"
    seconds = measure.goal.limit
    return f"≤ {seconds:g} s" if seconds >= 0.1 else f"≤ {seconds * 1000:g} ms"
