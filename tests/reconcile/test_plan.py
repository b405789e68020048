"""Plans, as the lines that a user reads. Each test is a situation; its plan stands there whole."""

from dataclasses import replace
from textwrap import dedent

from engine.model.status import State
from engine.reconcile.planner import plan, plan_removal
from engine.reconcile.records import Subflow
from engine.reconcile.state import Desired, DesiredMount, DesiredUser
from engine.reconcile.text import plan_text
from tests.reconcile.world import World, flow, id_of, requests, served, two_users, workers

DEMO = two_users(
    workers=(workers("user0"), requests("user0"), workers("user1"), requests("user1")),
    flows=(
        flow("user0", "once", singleton=True),
        flow("user1", "twice", subflows={"first": Subflow("user0", "once")}),
    ),
    mounts=(DesiredMount("user1", "mine", "user1", "twice"),),
)


def there(desired: Desired = DEMO) -> World:
    """Return a world in which `desired` has been applied."""
    world = World()
    world.carry_out(plan(desired, world.observed()), desired)
    return world


def lines(desired: Desired, world: World, *, others: tuple[str, ...] = ()) -> list[str]:
    """Return the plan's lines, with runs of blanks as one."""
    text = plan_text(plan(desired, world.observed(), others=others))
    return [" ".join(line.split()) for line in text.splitlines()]


def expected(text: str) -> list[str]:
    return dedent(text).strip().splitlines()


def without_flow(desired: Desired, endpoint: str) -> Desired:
    return replace(
        desired,
        flows=tuple(f for f in desired.flows if f.endpoint != endpoint),
        mounts=tuple(m for m in desired.mounts if m.flow_endpoint != endpoint),
    )


def with_flow(desired: Desired, endpoint: str, **fields: object) -> Desired:
    flows = tuple(
        replace(f, **fields) if f.endpoint == endpoint else f  # type: ignore[arg-type]
        for f in desired.flows
    )
    return replace(desired, flows=flows)


def test_nothing_is_there_yet() -> None:
    assert lines(DEMO, World()) == expected(
        """
        + create core core not running
        + create user user0 no identity yet (after core/-/core)
        + create user user1 no identity yet (after core/-/core)
        + create worker user0/dispatch:coflows_dispatch not running \
(after core/-/core, user/-/user0)
        + create worker user0/get_instance not running (after core/-/core, user/-/user0)
        + create worker user1/dispatch:coflows_dispatch not running \
(after core/-/core, user/-/user1)
        + create worker user1/get_instance not running (after core/-/core, user/-/user1)
        + create flow user0/once not served yet (after core/-/core, user/-/user0)
        + create flow user1/twice not served yet (after core/-/core, user/-/user0, user/-/user1)
        + create mount user1/mine not mounted yet (after core/-/core, flow/user0/once, \
flow/user1/twice, user/-/user0, user/-/user1, worker/user0/get_instance, worker/user1/get_instance)
        demo: 10 to create.
        """
    )


def test_everything_is_there() -> None:
    assert lines(DEMO, there()) == ["demo: nothing to do; everything is as the manifest says."]


def test_more_and_fewer_workers_are_an_update_in_place() -> None:
    more = replace(DEMO, workers=(workers("user0", 3), *DEMO.workers[1:]))
    assert lines(more, there()) == expected(
        """
        ~ update worker user0/dispatch:coflows_dispatch workers: 1 → 3
        demo: 1 to update.
        """
    )
    assert lines(DEMO, there(more))[0] == (
        "~ update worker user0/dispatch:coflows_dispatch workers: 3 → 1"
    )


def test_workers_that_died_are_their_supervisors_business() -> None:
    world = there()
    group = world.workers["user0", "dispatch:coflows_dispatch"]
    group[:] = [replace(worker, state=State.FAILED, pid=0) for worker in group]
    assert plan(DEMO, world.observed()).empty


def test_new_code_of_a_plugin_restarts_the_workers_that_need_it() -> None:
    newer = replace(DEMO, workers=(workers("user0", digest="code-2"), *DEMO.workers[1:]))
    assert lines(newer, there()) == expected(
        """
        ↻ restart worker user0/dispatch:coflows_dispatch the code, environment or core of its \
flows changed
        demo: 1 to restart.
        """
    )


def test_a_flow_is_added() -> None:
    more = replace(DEMO, flows=(*DEMO.flows, flow("user0", "new")))
    assert lines(more, there()) == expected(
        """
        + create flow user0/new not served yet
        demo: 1 to create.
        """
    )


def test_a_flow_and_its_mount_are_removed_mount_first() -> None:
    assert lines(without_flow(DEMO, "twice"), there()) == expected(
        """
        - delete mount user1/mine no longer in the manifest
        - delete flow user1/twice no longer in the manifest (after mount/user1/mine)
        demo: 2 to delete.
        """
    )


def test_overrides_are_taken_over_and_the_instances_stay() -> None:
    changed = with_flow(DEMO, "once", config_overrides={"base": 10})
    assert lines(changed, there()) == expected(
        """
        ~ update flow user0/once config_overrides.base: (none) → 10
        demo: 1 to update.
        """
    )


def test_a_cause_tells_what_differs_and_not_what_stayed() -> None:
    before = with_flow(DEMO, "twice", config_overrides={"a": {"b": 1, "c": 2}, "d": [1], "e": 5})
    after = {"a": {"b": 1, "c": 3}, "d": [2], "f": {"$env": "${oc.env:KEY}"}, "g": 7}
    assert lines(with_flow(DEMO, "twice", config_overrides=after), there(before))[0] == (
        "~ update flow user1/twice config_overrides.a.c: 2 → 3; config_overrides.d: [1] → [2]; "
        "config_overrides.e: 5 → (none); and 2 more"
    )
    secret = with_flow(DEMO, "twice", config_overrides={"f": {"$env": "${oc.env:KEY}"}})
    assert "config_overrides.f: (none) → ${oc.env:KEY}" in lines(secret, there())[0]


def test_another_subflow_leaves_the_instance_its_id_and_state() -> None:
    more = replace(DEMO, flows=(*DEMO.flows, flow("user0", "other", flow_class_name="test.Other")))
    changed = with_flow(more, "twice", subflows={"first": Subflow("user0", "other")})
    world = there(more)
    before = world.mounts["user1", "mine"].record.flow_id
    assert lines(changed, world) == expected(
        """
        ~ update flow user1/twice subflows.first.flow_endpoint: once → other
        ~ update mount user1/mine its flow has other subflows (after flow/user1/twice)
        demo: 2 to update.
        """
    )
    world.carry_out(plan(changed, world.observed()), changed)
    assert world.mounts["user1", "mine"].record.flow_id == before


def test_overrides_of_a_mount_reach_an_own_instance_and_not_somebody_elses() -> None:
    def wanting(server: str, endpoint: str, overrides: dict[str, int]) -> Desired:
        mount = DesiredMount("user1", "mine", server, endpoint, overrides)
        return replace(DEMO, mounts=(mount,))

    own = there(wanting("user1", "twice", {}))
    assert lines(wanting("user1", "twice", {"base": 2}), own)[0] == (
        "~ update mount user1/mine config_overrides.base: (none) → 2"
    )
    theirs = there(wanting("user0", "once", {}))
    assert lines(wanting("user0", "once", {"base": 2}), theirs)[0] == (
        "± replace mount user1/mine config_overrides.base: (none) → 2"
    )


def test_a_mount_that_was_left_behind_when_a_class_changed_is_replaced() -> None:
    changed = with_flow(DEMO, "once", flow_class_name="test.Other")
    world = there()
    world.carry_out(plan(changed, world.observed()), changed, only={"flow/user0/once"})
    assert lines(changed, world)[0] == (
        "± replace mount user1/mine once is another class than before"
    )


def test_what_cannot_be_seen_yet_is_not_made_anew() -> None:
    steps = plan(DEMO, there().unconnected()).steps
    assert {(step.action, step.kind) for step in steps if step.kind != "worker"} == {
        ("create", "core"),
        ("update", "user"),
    }


def test_what_cannot_be_seen_yet_is_looked_at_before_it_is_taken_down() -> None:
    unconnected = replace(there().unconnected(), users={})
    steps = plan_removal("demo", unconnected, purge=False).steps
    assert [step.id for step in steps] == ["core/-/core", "user/-/user0", "user/-/user1"]


def test_only_what_reaches_an_unseen_user_waits_for_him() -> None:
    world = there()
    world.mounts.clear()
    world.flows.clear()
    half_seen = replace(world.observed(), unseen=frozenset({"user0"}))
    steps = plan(DEMO, half_seen).steps
    assert [step.id for step in steps] == ["user/-/user0", "flow/user1/twice"]


def test_another_class_replaces_the_flow_and_every_instance_that_reaches_it() -> None:
    changed = with_flow(DEMO, "once", flow_class_name="test.Other")
    assert lines(changed, there()) == expected(
        """
        ± replace flow user0/once flow_class_name: test.Echo → test.Other
        ± replace mount user1/mine flow user0/once is replaced (after flow/user0/once)
        demo: 2 to replace.
        """
    )


def test_another_dispatch_point_rewrites_the_endpoint() -> None:
    changed = with_flow(DEMO, "once", dispatch_point="gpu_dispatch", parallel_dispatch=True)
    assert lines(changed, there())[0] == (
        "~ update flow user0/once dispatch_point: coflows_dispatch → gpu_dispatch; "
        "parallel_dispatch: false → true"
    )


def test_drift_is_put_right_and_named() -> None:
    world = there()
    once = world.flows["user0", "once"]
    world.flows["user0", "once"] = replace(once, singleton=False)
    world.flows["user1", "twice"] = replace(world.flows["user1", "twice"], served=False)
    world.mounts["user1", "mine"] = replace(world.mounts["user1", "mine"], live=False)
    assert lines(DEMO, world) == expected(
        """
        ~ update flow user0/once was changed outside: singleton
        ~ update flow user1/twice was changed outside: it is no longer served
        ± replace mount user1/mine its instance, or that of a subflow, is gone (after \
flow/user0/once, flow/user1/twice)
        demo: 1 to replace, 2 to update.
        """
    )


def test_an_endpoint_served_by_hand_is_adopted_when_it_is_the_same() -> None:
    world = there()
    world.flows["user0", "once"] = replace(world.flows["user0", "once"], record=None)
    assert lines(DEMO, world)[0] == (
        "~ update flow user0/once adopted: it is served by hand in the same way"
    )


def test_an_endpoint_served_by_hand_is_not_touched_when_it_is_another() -> None:
    world = there()
    once = world.flows["user0", "once"]
    world.flows["user0", "once"] = replace(once, record=None, flow_class_name="their.Flow")
    assert lines(DEMO, world) == expected(
        """
        ! flow/user0/once: another flow is served there by hand. Unserve it, or choose another \
endpoint.
        demo: 1 to decide by you.
        """
    )


def test_what_nobody_declared_gets_no_step() -> None:
    world = there()
    theirs = served(flow("user0", "theirs"), there().flows["user0", "once"].record)  # type: ignore[arg-type]
    world.flows["user0", "theirs"] = replace(theirs, record=None)
    assert plan(DEMO, world.observed()).empty


def test_another_live_manifest_keeps_what_it_owns() -> None:
    other = replace(DEMO, manifest="other")
    assert lines(DEMO, there(other), others=("other",))[-3:] == expected(
        """
        ! flow/user1/twice: it belongs to the manifest other. Remove it from one of the two.
        ! mount/user1/mine: it belongs to the manifest other. Choose another name.
        demo: 4 to create, 3 to decide by you.
        """
    )


def test_a_manifest_that_is_not_applied_any_more_loses_its_things_to_who_wants_them() -> None:
    other = replace(DEMO, manifest="other")
    assert "~ update flow user0/once taken over from other, which is not applied" in lines(
        DEMO, there(other)
    )


def test_going_down_stops_the_workers_last() -> None:
    text = plan_text(plan_removal("demo", there().observed(), purge=False))
    assert [" ".join(line.split("(")[0].split()) for line in text.splitlines()] == expected(
        """
        - release mount user1/mine the manifest is taken down
        - release flow user0/once the manifest is taken down
        - release flow user1/twice the manifest is taken down
        - delete worker user0/dispatch:coflows_dispatch the manifest is taken down
        - delete worker user0/get_instance the manifest is taken down
        - delete worker user1/dispatch:coflows_dispatch the manifest is taken down
        - delete worker user1/get_instance the manifest is taken down
        demo: 4 to delete, 3 to release.
        """
    )


def test_purging_deletes_the_users_that_no_other_manifest_names() -> None:
    world = there()
    world.users["user0"] = replace(world.users["user0"], manifests=("demo", "other"))
    steps = plan_removal("demo", world.observed(), purge=True).steps
    assert [step.name for step in steps if step.kind == "user"] == ["user1"]
    assert {step.action for step in steps} == {"delete"}


def test_what_was_released_is_taken_up_again_with_its_instance() -> None:
    world = there()
    before = world.mounts["user1", "mine"].record.flow_id
    world.carry_out(plan_removal("demo", world.observed(), purge=False), DEMO)
    again = plan(DEMO, world.observed())
    told = [" ".join(line.split("(")[0].split()) for line in plan_text(again).splitlines()]
    assert "~ update flow user0/once served again" in told
    assert "~ update mount user1/mine taken up again" in told
    world.carry_out(again, DEMO)
    assert world.mounts["user1", "mine"].record.flow_id == before


def test_a_foreign_user_gets_no_step_and_a_mount_of_his_needs_only_ours() -> None:
    foreign = id_of("bob")
    desired = Desired(
        "demo",
        users=(DesiredUser("alice"), DesiredUser("bob", foreign)),
        workers=(requests("alice"),),
        mounts=(DesiredMount("alice", "critic", foreign, "critic"),),
    )
    world = there(desired)
    world.mounts.clear()
    assert lines(desired, world)[0] == "+ create mount alice/critic not mounted yet"
