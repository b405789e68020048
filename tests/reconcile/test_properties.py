"""What holds for every manifest and every world: checked on many, made by Hypothesis."""

from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.reconcile.planner import plan, plan_removal
from engine.reconcile.progress import Progress
from engine.reconcile.records import Allow, Subflow
from engine.reconcile.state import Desired, DesiredFlow, DesiredMount, DesiredUser
from engine.reconcile.steps import Plan
from engine.reconcile.text import plan_text
from tests.reconcile.world import World, flow, requests, workers

USERS = ("ann", "bob", "cid")
ENDPOINTS = ("a", "b", "c")
CLASSES = ("test.Echo", "test.Other")
_flags = st.booleans()
_allowed = st.sets(st.sampled_from(USERS)).map(lambda users: tuple(sorted(users)))
_overrides = st.fixed_dictionaries({}, optional={"n": st.integers(0, 2)})


@st.composite
def _flows(draw: st.DrawFn, users: tuple[str, ...]) -> tuple[DesiredFlow, ...]:
    """Draw flows whose subflows are among those drawn before, so that there is no cycle."""
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(users), st.sampled_from(ENDPOINTS)), unique=True, max_size=5
        )
    )
    found: list[DesiredFlow] = []
    for user, endpoint in keys:
        below = draw(st.lists(st.sampled_from(found), max_size=2)) if found else []
        found.append(
            flow(
                user,
                endpoint,
                flow_class_name=draw(st.sampled_from(CLASSES)),
                singleton=draw(_flags),
                parallel_dispatch=draw(_flags),
                dispatch_point=draw(st.sampled_from(("coflows_dispatch", "gpu_dispatch"))),
                config_overrides=draw(_overrides),
                allow=Allow(draw(_allowed), draw(_allowed)),
                subflows={
                    f"s{number}": Subflow(served.user, served.endpoint, draw(_overrides))
                    for number, served in enumerate(below)
                },
            )
        )
    return tuple(found)


@st.composite
def manifests(draw: st.DrawFn) -> Desired:
    """Draw what a manifest may want."""
    users = tuple(draw(st.lists(st.sampled_from(USERS), unique=True, min_size=1)))
    flows = draw(_flows(users))
    groups = []
    for user in users:
        count = draw(st.integers(0, 3))
        groups += [workers(user, count, draw(st.sampled_from(("1", "2"))))] if count else []
        groups += [requests(user, draw(st.integers(1, 2)))] if draw(_flags) else []
    mounts = []
    for name in draw(st.lists(st.sampled_from(("m", "n")), unique=True)) if flows else []:
        served = draw(st.sampled_from(flows))
        user = draw(st.sampled_from(users))
        mounts.append(DesiredMount(user, name, served.user, served.endpoint, draw(_overrides)))
    return Desired(
        "demo",
        users=tuple(DesiredUser(user) for user in users),
        workers=tuple(groups),
        flows=flows,
        mounts=tuple(mounts),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a world: some manifest applied, perhaps in part only, and things changed by hand."""
    before = draw(manifests())
    world = World()
    first = plan(before, world.observed())
    steps = [step.id for step in first.steps]
    world.carry_out(first, before, only=set(draw(st.lists(st.sampled_from(steps), unique=True))))
    for key, found in list(world.flows.items()):
        drift = draw(st.sampled_from(("", "unserved", "singleton", "record")))
        if drift == "unserved":
            world.flows[key] = replace(found, served=False)
        elif drift == "singleton":
            world.flows[key] = replace(found, singleton=not found.singleton)
        elif drift == "record":
            del world.flows[key]
    for key, mount in list(world.mounts.items()):
        world.mounts[key] = replace(mount, live=draw(st.sampled_from((True, False, None))))
    if draw(_flags):
        world.core_ready = False
    return world


@given(manifests(), worlds())
def test_a_plan_carried_out_leaves_nothing_to_do(desired: Desired, world: World) -> None:
    world.carry_out(plan(desired, world.observed()), desired)
    left = plan(desired, world.observed())
    assert left.empty, plan_text(left)


@given(manifests(), worlds(), st.data())
def test_a_plan_cut_short_is_finished_by_the_next(
    desired: Desired, world: World, data: st.DataObject
) -> None:
    first = plan(desired, world.observed())
    ids = [step.id for step in first.steps]
    done = set(data.draw(st.lists(st.sampled_from(ids), unique=True))) if ids else set()
    world.carry_out(first, desired, only=done)
    # The second of these turns writes the ids of users into `allow` that the first has made.
    for _ in range(2):
        world.carry_out(plan(desired, world.observed()), desired)
    assert plan(desired, world.observed()).empty


@given(manifests(), worlds())
def test_the_order_of_what_is_wanted_and_found_does_not_matter(
    desired: Desired, world: World
) -> None:
    turned = replace(
        desired,
        users=desired.users[::-1],
        workers=desired.workers[::-1],
        flows=desired.flows[::-1],
        mounts=desired.mounts[::-1],
    )
    assert plan(desired, world.observed()) == plan(turned, world.observed(backwards=True))


@given(manifests(), manifests())
def test_what_an_edit_does_not_touch_gets_no_step(before: Desired, after: Desired) -> None:
    world = World()
    world.carry_out(plan(before, world.observed()), before)
    touched = {(step.kind, step.user, step.name) for step in plan(after, world.observed()).steps}
    same_flows = set(map(repr, before.flows)) & set(map(repr, after.flows))
    for wanted in after.flows:
        names = {name.name for name in before.users} == {name.name for name in after.users}
        if repr(wanted) in same_flows and names:
            assert ("flow", wanted.user, wanted.endpoint) not in touched
    for group in set(before.workers) & set(after.workers):
        assert ("worker", group.user, group.name) not in touched


@given(manifests(), worlds(), st.data())
def test_a_failed_step_stops_what_waits_for_it_and_nothing_else(
    desired: Desired, world: World, data: st.DataObject
) -> None:
    made = plan(desired, world.observed())
    if not made.steps:
        return
    bad = data.draw(st.sampled_from([step.id for step in made.steps]))
    progress = Progress(made)
    done: set[str] = set()
    while ready := progress.ready():
        for step in ready:
            assert done.issuperset(step.waits_for)
            if step.id == bad:
                progress.failed(step.id, "out of luck")
            else:
                progress.succeeded(step.id)
                done.add(step.id)
    assert progress.finished
    assert set(progress.failures) == {bad}
    assert set(progress.skipped) == _dependents(made, bad)
    assert done | {bad} | set(progress.skipped) == {step.id for step in made.steps}


@given(manifests(), worlds(), st.booleans())
def test_taking_down_leaves_nothing_of_the_manifest(
    desired: Desired, world: World, purge: bool
) -> None:
    world.carry_out(plan(desired, world.observed()), desired)
    world.carry_out(plan_removal("demo", world.observed(), purge=purge), desired)
    assert plan_removal("demo", world.observed(), purge=purge).empty
    assert not any(f.served for f in world.flows.values())
    assert not world.workers
    if purge:
        assert not world.flows
        assert not world.mounts
        assert not world.users


@given(manifests(), worlds())
@settings(max_examples=50)
def test_steps_are_told_once_and_wait_only_for_steps_of_their_plan(
    desired: Desired, world: World
) -> None:
    made = plan(desired, world.observed())
    ids = [step.id for step in made.steps]
    assert len(ids) == len(set(ids))
    assert all(set(step.waits_for) <= set(ids) - {step.id} for step in made.steps)
    assert not any(
        a.id in b.waits_for and b.id in a.waits_for for a, b in combinations(made.steps, 2)
    )


def _dependents(made: Plan, step_id: str) -> set[str]:
    found: set[str] = set()
    grown = True
    while grown:
        more = {step.id for step in made.steps if not {step_id, *found}.isdisjoint(step.waits_for)}
        grown = not more <= found
        found |= more
    return found
