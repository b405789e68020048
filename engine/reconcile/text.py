"""A plan for people and for programs. The same lines go to the terminal, the log and the tests."""

from typing import Any

from engine.reconcile.steps import NOBODY, Plan, Step

_SIGNS = {
    "create": "+",
    "update": "~",
    "replace": "±",
    "restart": "↻",
    "release": "-",
    "delete": "-",
}


def step_text(step: Step) -> str:
    """Return a step as one line: what is done, to what, and why."""
    name = step.name if step.user == NOBODY else f"{step.user}/{step.name}"
    return f"{_SIGNS[step.action]} {step.action:<8} {step.kind:<7} {name:<40} {step.cause}"


def plan_text(plan: Plan) -> str:
    """Return a plan as lines: the steps with what they wait for, problems, and a summary."""
    lines = []
    for step in plan.steps:
        waits = f"  (after {', '.join(step.waits_for)})" if step.waits_for else ""
        lines.append(step_text(step) + waits)
    lines += [f"! {problem}" for problem in plan.problems]
    return "\n".join([*lines, _summary(plan)])


def to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON data (the shape of `engine plan -o json`)."""
    return {
        "manifest": plan.manifest,
        "changes": not plan.empty,
        "steps": [
            {
                "action": step.action,
                "kind": step.kind,
                "user": step.user,
                "name": step.name,
                "cause": step.cause,
                "waits_for": list(step.waits_for),
                "changes": list(step.changes),
            }
            for step in plan.steps
        ],
        "problems": [
            {"resource": problem.resource, "message": problem.message} for problem in plan.problems
        ],
    }


def _summary(plan: Plan) -> str:
    if plan.empty:
        return f"{plan.manifest}: nothing to do; everything is as the manifest says."
    counts: dict[str, int] = {}
    for step in plan.steps:
        counts[step.action] = counts.get(step.action, 0) + 1
    told = ", ".join(f"{count} to {action}" for action, count in sorted(counts.items()))
    problems = f"{len(plan.problems)} to decide by you" if plan.problems else ""
    return f"{plan.manifest}: {', '.join(part for part in (told, problems) if part)}."
