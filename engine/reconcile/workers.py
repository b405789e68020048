"""Planning workers: one step for each group of a user's workers that differs. Pure."""

from collections.abc import Iterable

from engine.model.status import State
from engine.reconcile import steps as ids
from engine.reconcile.state import Desired, DesiredWorkers, Observed, ObservedWorker
from engine.reconcile.steps import Step


def plan_workers(desired: Desired, observed: Observed) -> Iterable[Step]:
    """Return the steps that make the manifest's groups of workers what they shall be.

    Workers that died are not planned for: their supervisor restarts them.
    """
    running: dict[tuple[str, str], list[ObservedWorker]] = {}
    for worker in observed.workers:
        if worker.manifest == desired.manifest and worker.state is not State.TERMINATING:
            running.setdefault((worker.user, worker.group), []).append(worker)
    wanted = {(group.user, group.name): group for group in desired.workers}
    for key, group in wanted.items():
        yield from _group(group, running.get(key, []))
    kept = {mount.user for mount in desired.mounts} | {flow.user for flow in desired.flows}
    for user, name in running.keys() - wanted.keys():
        cause = "no longer in the manifest" if user in kept else "its user needs none any more"
        yield Step("delete", "worker", user, name, cause)


def _group(wanted: DesiredWorkers, running: list[ObservedWorker]) -> Iterable[Step]:
    waits = (ids.CORE, ids.user_step(wanted.user))
    what = "requests at once" if wanted.kind == "get_instance" else "workers"
    count = sum(worker.count for worker in running)
    if not running:
        yield Step("create", "worker", wanted.user, wanted.name, "not running", waits)
    elif count != wanted.count:
        cause = f"{what}: {count} → {wanted.count}"
        yield Step("update", "worker", wanted.user, wanted.name, cause, waits, ("count",))
    elif any(worker.digest != wanted.digest for worker in running):
        cause = "the code, environment or core of its flows changed"
        yield Step("restart", "worker", wanted.user, wanted.name, cause, waits, ("digest",))
