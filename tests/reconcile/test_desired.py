"""A manifest's values become what is wanted, with every default filled in."""

from engine.model.manifest import AllowSpec, FlowSpec, Manifest, MountSpec, SubflowSpec, UserSpec
from engine.reconcile.desired import desired
from engine.reconcile.records import Allow, Subflow
from engine.reconcile.state import Desired
from tests.reconcile.world import id_of

BOB = id_of("bob")
DEFAULTS = {
    "test.Composite": {
        "one": {"user_id": "local", "flow_endpoint": "echo"},
        "two": {"flow_endpoint": "echo"},
        "untold": {"description": "served by whoever the manifest says"},
    }
}


def wanted(flow: FlowSpec, *, mounts: dict[str, MountSpec] | None = None) -> Desired:
    """Return what a manifest wants in which alice serves `flow` at `f`, and bob is foreign."""
    users = {
        "alice": UserSpec(flows={"f": flow}, mounts=mounts or {}),
        "bob": UserSpec(user_id=BOB),
    }
    manifest = Manifest("demo", "demo.yaml", users=users)
    return desired(manifest, lambda name: DEFAULTS.get(name, {}), lambda name: f"code of {name}")


def test_allow_defaults_to_the_users_of_the_manifest_foreign_ones_by_id() -> None:
    (flow,) = wanted(FlowSpec("test.Echo")).flows
    everybody = tuple(sorted((BOB, "alice")))
    assert flow.allow == Allow(everybody, everybody)


def test_allow_any_stands_alone() -> None:
    said = AllowSpec(get_instance=("alice", "any"), send=("bob",))
    (flow,) = wanted(FlowSpec("test.Echo", allow=said)).flows
    assert flow.allow == Allow(("any",), (BOB,))


def test_subflows_are_those_of_the_class_under_those_of_the_manifest() -> None:
    (flow,) = wanted(
        FlowSpec(
            "test.Composite",
            subflows={"two": SubflowSpec("bob", "critic", {"n": 1})},
        )
    ).flows
    assert flow.subflows == {
        "one": Subflow("alice", "echo"),
        "two": Subflow(BOB, "critic", {"n": 1}),
    }


def test_a_mount_is_served_by_its_own_user_unless_said_otherwise() -> None:
    mounts = {"own": MountSpec("f"), "his": MountSpec("g", user_id="bob")}
    found = {mount.name: mount.server for mount in wanted(FlowSpec("t.E"), mounts=mounts).mounts}
    assert found == {"own": "alice", "his": BOB}


def test_workers_of_a_dispatch_point_depend_on_the_code_of_its_flows_only() -> None:
    here = wanted(FlowSpec("test.Echo")).workers
    there = wanted(FlowSpec("other.Echo")).workers
    elsewhere = wanted(FlowSpec("other.Echo", dispatch_point="gpu_dispatch")).workers
    (one,), (other,), (idle,) = (
        [w.digest for w in found if w.kind == "dispatch"] for found in (here, there, elsewhere)
    )
    assert one != other != idle
    assert [w.count for w in here if w.kind == "get_instance"] == [1]
