"""Book-keeping for whoever carries out a plan: what may start, what failed, what that stops."""

from engine.reconcile.steps import Plan, Step


class Progress:
    """How far a plan has come. Each change costs as much as it concerns, not as the plan is long.

    A step is handed out once all that it waits for has *succeeded*. When one fails, what waits for
    it, directly or not, is skipped; nothing else is.
    """

    def __init__(self, plan: Plan) -> None:
        self.failures: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self._steps = {step.id: step for step in plan.steps}
        self._left = {step.id: len(step.waits_for) for step in plan.steps}
        self._dependents: dict[str, list[str]] = {step.id: [] for step in plan.steps}
        for step in plan.steps:
            for wait in step.waits_for:
                self._dependents[wait].append(step.id)
        self._ready = [step.id for step in plan.steps if not step.waits_for]
        self._open = len(plan.steps)

    @property
    def finished(self) -> bool:
        """Tell whether every step has succeeded, failed or been skipped."""
        return self._open == 0

    def ready(self) -> tuple[Step, ...]:
        """Return the steps that may start now; each is returned once."""
        ready, self._ready = self._ready, []
        return tuple(self._steps[step_id] for step_id in ready)

    def succeeded(self, step_id: str) -> None:
        """Note that a step is done."""
        self._open -= 1
        for dependent in self._dependents[step_id]:
            self._left[dependent] -= 1
            if self._left[dependent] == 0 and dependent not in self.skipped:
                self._ready.append(dependent)

    def failed(self, step_id: str, message: str) -> None:
        """Note that a step failed, and skip what waits for it."""
        self._open -= 1
        self.failures[step_id] = message
        waiting = list(self._dependents[step_id])
        while waiting:
            dependent = waiting.pop()
            if dependent not in self.skipped:
                self._open -= 1
                self.skipped[dependent] = f"waits for {step_id}, which failed"
                waiting += self._dependents[dependent]
