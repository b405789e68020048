"""The status says how everything is, and the cause of what is not right."""

from dataclasses import replace

from engine.model.errors import Fault
from engine.model.status import Condition, ManifestStatus, State
from engine.reconcile.conditions import conditions
from engine.reconcile.planner import plan
from tests.reconcile.test_plan import DEMO, there
from tests.reconcile.world import World


def status(world: World, **fields: object) -> ManifestStatus:
    """Return the status of DEMO in `world`, at its first generation unless said otherwise."""
    values: dict[str, object] = {
        "failures": {},
        "generation": 1,
        "observed_generation": 1,
        "previous": None,
        "now": 100.0,
    }
    return conditions(DEMO, world.observed(), **{**values, **fields})  # type: ignore[arg-type]


def converged(found: ManifestStatus) -> Condition:
    return next(c for c in found.conditions if c.type == "Converged")


def test_all_is_well() -> None:
    found = status(there())
    assert found.converged
    assert [(c.type, c.status, c.message) for c in found.conditions] == [
        ("ManifestValid", "True", ""),
        ("Converged", "True", ""),
    ]
    user1 = found.users["user1"]
    assert user1.flows["twice"].state is State.READY
    assert user1.mounts["mine"].flow_id == "flow-1"
    assert {worker.state for worker in user1.workers} == {State.READY}


def test_nothing_is_there_yet() -> None:
    found = status(World())
    assert not found.converged
    assert found.users["user0"].workers[0].state is State.PENDING
    assert found.users["user0"].flows["once"].message == "the core is not running"


def test_a_worker_in_a_crash_loop_is_told_once_and_its_flows_are_degraded() -> None:
    world = there()
    group = world.workers["user0", "dispatch:coflows_dispatch"]
    group[:] = [
        replace(worker, state=State.FAILED, message="crash loop: out of memory", restarts=5)
        for worker in group
    ]
    found = status(world)
    assert not found.converged
    assert found.users["user0"].flows["once"].state is State.DEGRADED
    assert found.users["user1"].flows["twice"].state is State.READY
    assert converged(found).message == (
        "worker user0/dispatch:coflows_dispatch-0 is Failed: crash loop: out of memory"
    )


def test_a_failed_step_is_the_cause_that_is_told() -> None:
    found = status(World(core_ready=True), failures={"flow/user0/once": "the disk is full"})
    assert found.users["user0"].flows["once"].state is State.FAILED
    assert found.users["user0"].flows["once"].message == "the disk is full"
    assert converged(found).reason == "Failed"


def test_a_faulty_file_is_told_and_the_last_good_generation_stays() -> None:
    fault = Fault("demo.yaml", 3, 5, "users", "Wrong.", "Right it.")
    found = status(there(), faults=(fault,))
    assert not found.converged
    valid = next(c for c in found.conditions if c.type == "ManifestValid")
    assert valid.status == "False"
    assert "demo.yaml:3:5" in valid.message
    assert found.users["user0"].flows["once"].state is State.READY


def test_an_edit_that_is_not_made_yet_is_not_converged() -> None:
    assert converged(status(there(), generation=2)).reason == "Progressing"


def test_while_it_is_taken_down_everything_is_terminating() -> None:
    found = status(there(), removing=True)
    assert not found.converged
    assert found.users["user1"].mounts["mine"].state is State.TERMINATING


def test_a_condition_is_dated_from_when_it_began() -> None:
    world = there()
    first = status(world, now=100.0)
    later = status(world, previous=first, now=200.0)
    assert {c.since for c in later.conditions} == {100.0}
    world.core_ready = False
    down = status(world, previous=later, now=300.0)
    assert converged(down).since == 300.0


def test_what_is_planned_for_a_world_is_what_the_status_misses() -> None:
    world = there()
    del world.mounts["user1", "mine"]
    assert [step.name for step in plan(DEMO, world.observed()).steps] == ["mine"]
    assert status(world).users["user1"].mounts["mine"].state is State.PENDING
