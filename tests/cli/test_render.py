"""JSON in, text out: golden texts."""

from datetime import UTC
from textwrap import dedent

from engine.cli import render

USER0 = "03b4f8bd347a581727fdb0b31ac81d1a17da46aba1e1a440ceb8c0182829699f76"
USER1 = "03964cddf0fa1ba008d786fc7884c9d179c5a9d6118e4aede0c68539a33e031d6e"


def golden(text: str) -> str:
    return dedent(text).strip("\n")


def worker(**changes):
    return {
        "name": "dispatch-0",
        "kind": "dispatch",
        "dispatch_point": "coflows_dispatch",
        "pid": 41,
        "state": "Ready",
        "restarts": 0,
        "message": "",
    } | changes


def flow(**changes):
    return {
        "flow_class_name": "reverse_number.ReverseNumberAtomicFlow",
        "singleton": False,
        "parallel_dispatch": False,
        "dispatch_point": "coflows_dispatch",
        "state": "Ready",
        "message": "",
    } | changes


def manifest(**changes):
    return {
        "name": "reverse-number",
        "file": "/m/reverse_number.yaml",
        "generation": 1,
        "observed_generation": 1,
        "converged": True,
        "conditions": [],
        "users": {},
    } | changes


CORE = {"kind": "embedded", "address": "http://127.0.0.1:2021", "ready": True, "message": ""}


def test_status_of_two_users_with_a_worker_that_keeps_dying():
    users = {
        "user0": {
            "user_id": USER0,
            "workers": [
                worker(),
                worker(
                    name="dispatch-1",
                    pid=0,
                    restarts=4,
                    state="Failed",
                    message="ended with exit code 1:\nImportError: no module named x",
                ),
            ],
            "flows": {"reverse_number_atomic": flow(singleton=True)},
            "mounts": {},
        },
        "user1": {
            "user_id": USER1,
            "workers": [worker(name="get_instance", kind="get_instance", pid=43)],
            "flows": {"fast": flow(parallel_dispatch=True, dispatch_point="gpu_dispatch")},
            "mounts": {
                "twice": {
                    "flow_id": "25886058-80c2-49ba-8b06-c9102d312667",
                    "user_id": USER0,
                    "flow_endpoint": "reverse_number_atomic",
                    "state": "Ready",
                    "message": "",
                },
                "far": {
                    "flow_id": "",
                    "user_id": "02" + "ab" * 32,
                    "flow_endpoint": "distant",
                    "state": "Pending",
                    "message": "waits for its user",
                },
            },
        },
    }
    value = {"core": CORE, "manifests": [manifest(users=users, converged=False)]}
    atomic = "reverse_number.ReverseNumberAtomicFlow"
    assert render.status(value) == golden(
        f"""
        core  embedded  http://127.0.0.1:2021  Ready

        reverse-number  Converging  generation 1  /m/reverse_number.yaml
          user0  {USER0}
            Ready    worker  dispatch-0             coflows_dispatch, pid 41
            Failed   worker  dispatch-1             coflows_dispatch, 4 restarts
              ended with exit code 1: ImportError: no module named x
            Ready    flow    reverse_number_atomic  {atomic}, singleton
          user1  {USER1}
            Ready    worker  get_instance           pid 43
            Ready    flow    fast                   {atomic}, parallel_dispatch, on gpu_dispatch
            Ready    mount   twice                  of user0/reverse_number_atomic 25886058-80c2-49ba-8b06-c9102d312667
            Pending  mount   far                    of 02ababab…/distant
              waits for its user
        """  # noqa: E501
    )


def test_status_tells_which_line_of_a_broken_save_is_wrong_and_what_runs():
    condition = {
        "type": "ManifestValid",
        "status": "False",
        "reason": "Faults",
        "message": "/m/a.yaml:3:1: users.x: unknown key.\n/m/a.yaml:9:2: unknown class.",
        "since": 1.0,
    }
    good = condition | {"type": "Converged", "status": "True"}
    value = {
        "core": CORE,
        "manifests": [manifest(generation=3, observed_generation=2, conditions=[good, condition])],
    }
    assert render.status(value).splitlines()[2:] == [
        "reverse-number  Converged  generation 3 (running: 2)  /m/reverse_number.yaml",
        "  ! ManifestValid is False: /m/a.yaml:3:1: users.x: unknown key.",
        "    /m/a.yaml:9:2: unknown class.",
    ]


def test_status_of_an_engine_without_manifests_says_what_to_do():
    core = CORE | {"ready": False, "message": "does not start: port in use"}
    assert render.status({"core": core, "manifests": []}) == golden(
        """
        core  embedded  http://127.0.0.1:2021  Pending  does not start: port in use
        No manifest is applied. Apply one with: engine apply MANIFEST
        """
    )


def entry(key, value=None, size=1):
    return {"key": key, "value": value, "size": size}


FLOWS = [
    entry("flows:reverse_number_atomic:parallel_dispatch", size=32),
    entry("flows:reverse_number_atomic:init", "1"),
    entry("flows:reverse_number_atomic:flow_class_name", '"reverse_number.A"'),
    entry(f"flows:reverse_number_atomic:mounts:{USER1}:f711b422:init", "1"),
    entry(f"flows:reverse_number_atomic:mounts:{USER1}:f711b422:state", "x" * 300, size=300),
]


def test_storage_as_the_notebook_shows_it():
    instances = [entry("instance_metadata:f711b422"), entry("instance_metadata:00ab")]
    assert render.served(FLOWS, instances).splitlines() == [
        " reverse_number_atomic/",
        "   flow_class_name",
        "   init",
        "   mounts/",
        f"     {USER1}/",
        "       f711b422/",
        "         init",
        "         state",
        "   parallel_dispatch",
        "",
        "All flow instances:",
        " 00ab",
        " f711b422",
    ]


def test_storage_with_values_shortens_long_ones_and_tells_the_size_of_binary_ones():
    lines = render.storage(FLOWS, "flows:reverse_number_atomic", values=True).splitlines()
    assert lines[:2] == [' flow_class_name = "reverse_number.A"', " init = 1"]
    assert lines[-1] == " parallel_dispatch = (32 bytes)"
    assert lines[-2].endswith("x… (300 bytes)")


def test_a_key_may_be_a_leaf_and_a_folder():
    assert render.storage([entry("a"), entry("a:b"), entry("a/:c")]) == " a\n a/\n   b\n a//\n   c"


def test_a_user_who_serves_nothing_is_told_so():
    assert render.served([], []) == " (nothing is served)\n\nAll flow instances:"


def test_plugins_show_where_they_are_from_and_why_one_is_broken():
    plugin = {
        "name": "reverse_number",
        "distribution": "reverse-number",
        "version": "0.1",
        "location": "/p/reverse_number",
        "classes": ["reverse_number.A", "reverse_number.B"],
        "error": None,
        "traceback": "",
    }
    broken = plugin | {
        "name": "bad",
        "distribution": "bad",
        "classes": [],
        "error": "ImportError: no\nmodule",
    }
    assert render.plugins([plugin, broken]) == golden(
        """
        reverse_number  ok      reverse-number 0.1  /p/reverse_number  reverse_number.A, reverse_number.B
        bad             broken  bad 0.1             /p/reverse_number
          error: ImportError: no module (its trace: engine plugins -o json)
        """  # noqa: E501
    )
    assert "No plugin is installed" in render.plugins([])


FLOW = {
    "name": "reverse_number.A",
    "plugin": "reverse_number",
    "composite": False,
    "doc": "Reverse a number.\n\nDigits only.",
}


def test_flows_are_listed_with_their_first_line():
    other = FLOW | {"name": "reverse_number.LongerName", "composite": True, "doc": ""}
    assert render.flows([FLOW, other]) == golden(
        """
        reverse_number.A           atomic     Reverse a number.
        reverse_number.LongerName  composite
        """
    )
    assert "engine plugins" in render.flows([])


def test_a_flow_is_shown_with_its_interfaces_and_defaults_as_yaml():
    value = FLOW | {
        "interfaces": {"input_interface": ["number"]},
        "default_config": {
            "name": "A: b",
            "input_interface": ["number"],
            "empty": {},
            "subflows_config": {"first": {"user_id": "local", "list": [[1], {"a": None}]}},
        },
    }
    assert render.flow(value) == golden(
        """
        reverse_number.A  atomic

          Reverse a number.

          Digits only.

        Interfaces:
          input_interface:
            - "number"

        Defaults:
          name: "A: b"
          input_interface:
            - "number"
          empty: {}
          subflows_config:
            first:
              user_id: "local"
              list:
                -
                  - 1
                -
                  a: null
        """
    )


def test_defaults_are_yaml_that_means_the_same():
    import yaml

    config = {"a": {"b": [1, {"c": [], "d": "x: y # z"}], "e": "ö\n"}, "f": True, "g": {}}
    text = render.flow(FLOW | {"interfaces": {}, "default_config": config})
    assert yaml.safe_load(text.partition("Defaults:\n")[2]) == config


def test_users_are_listed_with_their_ids():
    listed = render.users([{"name": "user0", "user_id": USER0, "core": "embedded"}])
    assert listed == f"user0  {USER0}  embedded"
    assert "no user yet" in render.users([])


def test_events_are_one_line_each_in_their_order():
    event = {
        "time": 1712572352.0,
        "type": "WorkerDied",
        "manifest": "reverse-number",
        "resource": "worker/user0/dispatch-0",
        "message": "killed by\nsignal 9",
    }
    bare = event | {"type": "EngineStarted", "manifest": "", "resource": "", "message": ""}
    assert render.events([bare, event], UTC) == golden(
        """
        2024-04-08 10:32:32  EngineStarted
        2024-04-08 10:32:32  WorkerDied  reverse-number  worker/user0/dispatch-0  killed by signal 9
        """
    )


def test_a_plan_is_shown_in_the_planners_own_words():
    assert render.plan({"text": "no changes", "steps": []}) == "no changes"


def test_columns_leave_out_those_that_are_empty_everywhere():
    assert render.columns([["a", "", "b"], ["long", "", "c"]]) == ["a     b", "long  c"]
    assert render.columns([]) == []
