"""Commands that ask the engine: what they send, print and return."""

import json

import pytest

CORE = {"kind": "embedded", "address": "http://127.0.0.1:2021", "ready": True}
NO_ENGINE = "No engine is running in"


def manifest(name):
    return {
        "name": name,
        "file": f"/m/{name}.yaml",
        "generation": 1,
        "observed_generation": 1,
        "converged": True,
        "conditions": [],
        "users": {},
    }


STATUS = {"core": CORE, "manifests": [manifest("one"), manifest("two")]}


def test_status_without_an_engine_says_how_to_start_one(run, home):
    code, out, err = run("status")
    assert (code, err) == (1, "")
    assert out == f"{NO_ENGINE} {home.path}. Start one with: engine apply MANIFEST\n"


def test_status_as_json_without_an_engine_keeps_its_shape(run):
    code, out, _ = run("status", "-o", "json")
    assert code == 0
    assert json.loads(out) == {
        "core": {"kind": "embedded", "address": "", "ready": False, "message": ""},
        "manifests": [],
    }


def test_status_as_json_is_what_the_engine_says(run, engine):
    engine.answers["GET /v1/status"] = STATUS
    code, out, _ = run("status", "-o", "json")
    assert (code, json.loads(out)) == (0, STATUS)


def test_status_of_one_manifest(run, engine):
    engine.answers["GET /v1/status"] = STATUS
    assert "two" in run("status", "two")[1]
    assert "one" not in run("status", "two")[1]
    code, _, err = run("status", "three")
    assert (code, err) == (1, "error: No manifest 'three' is applied. Applied are: one, two.\n")


def test_status_is_watched_until_the_engine_ends(run, engine, monkeypatch):
    answers = iter([STATUS, STATUS, STATUS | {"manifests": []}])

    def turn(seconds):
        engine.answers["GET /v1/status"] = next(
            answers, {"error": {"type": "CoreUnavailableError"}}
        )

    engine.answers["GET /v1/status"] = STATUS
    monkeypatch.setattr("engine.cli.commands.observing.time.sleep", turn)
    code, out, _ = run("status", "--watch", "-o", "json")
    assert code == 1
    assert [len(json.loads(line)["manifests"]) for line in out.splitlines()] == [2, 0]


def test_call_sends_the_input_and_prints_only_the_reply_as_json(run, engine):
    engine.answers["POST /v1/call"] = {"data": {"output_number": 1234}}
    code, out, err = run("call", "user1/twice", '{"id": 0, "number": 1234}', "--as", "user0")
    assert (code, out, err) == (0, '{"output_number": 1234}\n', "")
    assert engine.asked == [
        (
            "/v1/call",
            {
                "user": "user1",
                "name": "twice",
                "data": {"id": 0, "number": 1234},
                "as": "user0",
                "timeout": 60.0,
            },
        )
    ]


def test_a_flow_that_raises_is_one_line_and_exit_code_1(run, engine):
    message = "Reverse: ValueError: no number (flow.py:7)"
    engine.answers["POST /v1/call"] = {"error": {"type": "FlowFailedError", "message": message}}
    assert run("call", "user0/ep") == (1, "", f"error: {message}\n")


def test_a_call_that_takes_too_long_is_exit_code_5(run, engine):
    engine.answers["POST /v1/call"] = {"error": {"type": "DeadlineExceededError", "message": "m"}}
    assert run("call", "user0/ep", "--timeout", "1")[0] == 5
    assert engine.asked[0][1]["timeout"] == 1.0


def test_bad_input_of_a_call_never_reaches_the_engine(run, engine):
    code, out, err = run("call", "user0/ep", "{number: 1}")
    assert (code, out) == (2, "")
    assert err.startswith("error: The input is not JSON:")
    assert err.count("\n") == 1
    assert engine.asked == []


def test_a_call_without_an_engine_says_so(run):
    code, _, err = run("call", "user0/ep")
    assert code == 1
    assert err.startswith(f"error: {NO_ENGINE}")


ENTRIES = {"entries": [{"key": "flows:ep:init", "value": "1", "size": 1}]}


def test_storage_shows_what_is_served_and_all_instances(run, engine):
    engine.answers["GET /v1/storage"] = ENTRIES
    code, out, _ = run("storage", "user0")
    assert (code, out) == (0, " ep/\n   init\n\nAll flow instances:\n ep\n")
    assert [query["prefix"] for _, query in engine.asked] == ["flows", "instance_metadata"]


def test_storage_below_a_prefix_with_values(run, engine):
    engine.answers["GET /v1/storage"] = ENTRIES
    assert run("storage", "user0", "flows:ep", "--values")[1] == " init = 1\n"
    assert engine.asked == [("/v1/storage", {"user": "user0", "prefix": "flows:ep", "values": "1"})]
    assert run("storage", "user0", "--all")[1] == " flows/\n   ep/\n     init\n"


def test_storage_as_json_is_the_list_of_entries(run, engine):
    engine.answers["GET /v1/storage"] = ENTRIES
    assert json.loads(run("storage", "user0", "flows", "-o", "json")[1]) == ENTRIES["entries"]


def test_users_and_a_token_of_one(run, engine):
    users = [{"name": "user0", "user_id": "02ab", "core": "embedded"}]
    engine.answers["GET /v1/users"] = {"users": users}
    engine.answers["POST /v1/users/token"] = {"jwt": "a.b.c"}
    assert run("users") == (0, "user0  02ab  embedded\n", "")
    assert json.loads(run("users", "-o", "json")[1]) == users
    assert run("users", "token", "user0", "--expires-in", "60") == (0, "a.b.c\n", "")
    assert engine.asked[-1] == ("/v1/users/token", {"user": "user0", "expires_in": 60.0})


EVENT = {"time": 0.0, "type": "T", "manifest": "", "resource": "", "message": "m"}


def test_events_are_one_a_line(run, engine):
    engine.answers["GET /v1/events"] = [EVENT, EVENT]
    code, out, _ = run("events")
    assert (code, out.count("  T  m\n")) == (0, 2)
    assert [json.loads(line) for line in run("events", "-o", "json")[1].splitlines()] == [EVENT] * 2
    run("events", "-f")
    assert [query["follow"] for _, query in engine.asked] == ["0", "0", "1"]


LETTER = {
    "id": "l1",
    "reason": "failed",
    "message_key": "push_tasks:l1:msg",
    "flow_id": "f",
    "flow_endpoint": "ep",
    "error": {"error": "Ep: ValueError: bad"},
    "attempts": 2,
    "time": 1.0,
    "message": '{"data": {}}',
    "traceback": "Traceback:\n  bad\n",
    "user_id": "",
}


def test_dead_letters_are_listed_and_shown(run, engine):
    engine.answers["GET /v1/dead"] = {"letters": [LETTER]}
    engine.answers["GET /v1/dead/letter"] = {"letter": LETTER}
    code, out, _ = run("dead", "list", "user0")
    assert (code, out.count("l1"), "Ep: ValueError: bad" in out) == (0, 1, True)
    (listed,) = json.loads(run("dead", "list", "user0", "-o", "json")[1])
    assert listed == {
        name: LETTER[name]
        for name in ("id", "time", "reason", "flow_endpoint", "flow_id", "attempts")
    } | {"error": "Ep: ValueError: bad"}
    assert run("dead", "show", "user0", "l1")[1].endswith("Traceback:\n  bad\n")
    assert json.loads(run("dead", "show", "user0", "l1", "-o", "json")[1]) == LETTER
    assert engine.asked[-1] == ("/v1/dead/letter", {"user": "user0", "id": "l1"})


def test_a_dead_letter_is_sent_again_and_its_reply_printed(run, engine):
    engine.answers["POST /v1/dead/retry"] = {"data": {"count": 1}}
    assert run("dead", "retry", "user0", "l1", "--timeout", "5")[:2] == (0, '{"count": 1}\n')
    assert engine.asked[-1][1] == {"user": "user0", "id": "l1", "timeout": 5.0}
    engine.answers["POST /v1/dead/retry"] = {"data": None}
    assert run("dead", "retry", "user0", "l1")[:2] == (0, "")


def test_dead_letters_are_dropped_by_name_or_all_of_them(run, engine):
    engine.answers["POST /v1/dead/drop"] = {"dropped": ["l1"]}
    assert run("dead", "drop", "user0", "l1")[:2] == (0, "Dropped l1.\n")
    assert run("dead", "drop", "user0", "--all", "-o", "json")[1] == '{"dropped": ["l1"]}\n'
    assert engine.asked[-1][1] == {"user": "user0", "ids": [], "all": True}
    for arguments in ([], ["l1", "--all"]):
        code, _, err = run("dead", "drop", "user0", *arguments)
        assert (code, err.count("\n")) == (2, 1)


def test_events_of_an_engine_that_was_killed_are_read_from_its_file(run, home):
    home.events.write_text(f'{json.dumps(EVENT)}\n{{"time": 1')
    code, out, _ = run("events", "-o", "json")
    assert (code, json.loads(out)) == (0, EVENT)
    assert run("events", "--follow")[0] == 1


def test_logs_are_prefixed_with_their_worker_unless_one_is_named(run, home):
    log = home.worker_log("user0", "dispatch-0")
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthree")
    assert run("logs", "-n", "2")[1] == "user0/dispatch-0 | two\nuser0/dispatch-0 | three\n"
    assert run("logs", "user0/dispatch-0")[1] == "one\ntwo\nthree\n"
    code, _, err = run("logs", "user9")
    assert (code, err.count("\n")) == (1, 1)


def test_logs_before_anything_was_printed(run):
    code, out, err = run("logs")
    assert (code, out) == (0, "")
    assert err.startswith("No worker has printed anything yet")


def test_down_streams_progress_and_returns_the_engines_exit_code(run, engine):
    engine.answers["GET /v1/status"] = STATUS
    engine.answers["POST /v1/down"] = [
        {"type": "progress", "text": "- release  flow  user0/ep"},
        {"type": "result", "exit_code": 0, "message": "one: taken down.", "manifests": ["one"]},
    ]
    code, out, _ = run("down", "one", "--purge")
    assert (code, out) == (0, "- release  flow  user0/ep\none: taken down.\n")
    assert engine.asked[-1] == (
        "/v1/down",
        {"names": ["one"], "all": False, "purge": True, "timeout": 120.0},
    )


def test_a_result_that_is_a_failure_goes_to_standard_error(run, engine):
    engine.answers["GET /v1/status"] = STATUS
    result = {"type": "result", "exit_code": 4, "message": "one: 1 failed.", "manifests": ["one"]}
    engine.answers["POST /v1/down"] = [result]
    assert run("down", "one") == (4, "", "error: one: 1 failed.\n")
    assert json.loads(run("down", "one", "-o", "json")[1]) == result


def test_an_engine_that_ends_before_the_result_is_a_failure(run, engine):
    engine.answers["GET /v1/status"] = STATUS
    engine.answers["POST /v1/down"] = [{"type": "progress", "text": "a"}]
    code, _, err = run("down", "--all")
    assert code == 1
    assert err.startswith("error: The engine ended before it was done.")


def test_down_where_nothing_is_applied_starts_no_engine(run, home):
    assert run("down", "--all")[0] == 0
    home.applied.write_text("[]")
    assert run("down", "--all")[0] == 0
    code, _, err = run("down", "one")
    assert (code, err) == (1, f"error: No manifest one is applied in {home.path}.\n")
    assert not home.engine_log.exists()


def test_down_takes_names_or_all(run):
    code, _, err = run("down", "one", "--all")
    assert code == 2
    assert "not both" in err


@pytest.mark.parametrize("command", ["plugins", "flows"])
def test_what_is_installed_needs_no_engine(run, command):
    code, out, _ = run(command, "-o", "json")
    assert code == 0
    assert isinstance(json.loads(out), list)


def test_an_unknown_flow_class_is_one_line(run):
    code, out, err = run("flows", "nowhere.Nothing")
    assert (code, out) == (1, "")
    assert "no plugin 'nowhere' is installed" in err
    assert err.count("\n") == 1
