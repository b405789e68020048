"""validate, plan, apply, init and schema: manifests are checked here before an engine is asked."""

import json

import pytest
import yaml

MANIFEST = """\
apiVersion: engine/v1
name: greeting
users:
  user0: {}
"""
BROKEN = """\
apiVersion: engine/v1
name: greeting
users:
  user0:
    flow: {}
    workers: many
"""
PROGRESS = {"type": "progress", "text": "+ create  user  user0   named in the manifest"}
RESULT = {"type": "result", "exit_code": 0, "message": "greeting: applied.", "manifests": ["x"]}
PLAN = {
    "manifest": "greeting",
    "changes": True,
    "steps": [
        {
            "action": "create",
            "kind": "user",
            "user": "",
            "name": "user0",
            "cause": "no identity yet",
            "waits_for": [],
        }
    ],
    "text": "+ create  user  user0   no identity yet",
}


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "greeting.yaml"
    file.write_text(MANIFEST)
    return file


@pytest.fixture
def broken(tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text(BROKEN)
    return file


def test_a_valid_manifest_is_said_to_be_valid(run, file, home):
    assert run("validate", str(file)) == (0, f"{file}: valid\n", "")
    assert run("validate", str(file), "-o", "json") == (0, "[]\n", "")
    assert list(home.path.iterdir()) == []


def test_all_faults_come_at_once_with_their_places(run, broken):
    code, out, err = run("validate", str(broken))
    assert (code, out) == (3, "")
    *faults, total = err.splitlines()
    assert len(faults) == 2
    assert all(fault.startswith(f"{broken}:") for fault in faults)
    assert total == f"error: 2 faults in {broken}; nothing was changed."


def test_faults_as_json(run, broken):
    code, out, _ = run("validate", str(broken), "-o", "json")
    assert code == 3
    faults = json.loads(out)
    assert {fault["line"] for fault in faults} == {5, 6}
    assert set(faults[0]) == {"file", "line", "column", "path", "message", "hint"}


def test_a_file_that_is_not_there_is_a_fault_of_it(run, tmp_path):
    code, _, err = run("validate", f"{tmp_path}/absent.yaml")
    assert code == 3
    assert f"{tmp_path}/absent.yaml" in err


def test_two_files_that_claim_one_name_are_refused_together(run, file, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(MANIFEST)
    code, _, err = run("validate", str(file), str(other))
    assert code == 3
    assert str(file) in err
    assert str(other) in err


@pytest.mark.parametrize("command", ["apply", "plan"])
def test_an_invalid_manifest_never_reaches_the_engine(run, engine, broken, command):
    code, out, err = run(command, str(broken))
    assert (code, out) == (3, "")
    assert err.count(str(broken)) == 3
    assert engine.asked == []


def test_apply_streams_progress_and_says_how_to_look_further(run, engine, file):
    engine.answers["GET /v1/status"] = {"core": {}, "manifests": []}
    engine.answers["POST /v1/apply"] = [PROGRESS, RESULT]
    code, out, err = run("apply", str(file), "--timeout", "7")
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [PROGRESS["text"], "greeting: applied."]
    assert "engine status" in out
    assert engine.asked[-1] == (
        "/v1/apply",
        {
            "manifests": [
                {"file": str(file), "layers": [], "profiles": [], "env_files": []},
            ],
            "environment": {},
            "wait": True,
            "timeout": 7.0,
        },
    )


def test_apply_sends_only_the_variables_that_the_manifest_refers_to(run, engine, file, monkeypatch):
    file.write_text(MANIFEST.replace("greeting", "${oc.env:GREETING}-${oc.env:OTHER,x}"))
    monkeypatch.setenv("GREETING", "hello")
    monkeypatch.setenv("UNRELATED", "secret")
    engine.answers["GET /v1/status"] = {"core": {}, "manifests": []}
    engine.answers["POST /v1/apply"] = [RESULT]
    assert run("apply", str(file), "--no-wait")[0] == 0
    assert engine.asked[-1][1]["environment"] == {"GREETING": "hello"}
    assert engine.asked[-1][1]["wait"] is False


def test_apply_as_json_is_what_the_engine_sends(run, engine, file):
    engine.answers["GET /v1/status"] = {"core": {}, "manifests": []}
    engine.answers["POST /v1/apply"] = [PROGRESS, RESULT | {"exit_code": 4}]
    code, out, err = run("apply", str(file), "-o", "json")
    assert (code, err) == (4, "")
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["progress", "result"]


def test_a_plan_is_one_line_a_step(run, engine, file):
    engine.answers["POST /v1/plan"] = PLAN
    assert run("plan", str(file)) == (0, f"{PLAN['text']}\n", "")
    assert run("apply", "--dry-run", str(file)) == (0, f"{PLAN['text']}\n", "")
    assert {path for path, _ in engine.asked} == {"/v1/plan"}


def test_a_plan_as_json_and_with_a_detailed_exit_code(run, engine, file):
    engine.answers["POST /v1/plan"] = PLAN
    code, out, _ = run("plan", str(file), "--detailed-exitcode", "-o", "json")
    assert code == 2
    assert json.loads(out) == {key: value for key, value in PLAN.items() if key != "text"}
    engine.answers["POST /v1/plan"] = PLAN | {"changes": False, "steps": []}
    assert run("plan", str(file), "--detailed-exitcode")[0] == 0


def test_init_writes_a_manifest_that_is_not_overwritten_unasked(run, tmp_path):
    file = tmp_path / "manifest.yaml"
    code, out, _ = run("init", str(file))
    assert (code, out) == (0, f"{file} is written. Check it with: engine validate {file}\n")
    assert yaml.safe_load(file.read_text())["apiVersion"] == "engine/v1"
    file.write_text("mine")
    code, _, err = run("init", str(file))
    assert (code, err) == (2, f"error: {file} is there already. Overwrite it with --yes.\n")
    assert file.read_text() == "mine"
    assert run("init", str(file), "--yes")[0] == 0
    assert file.read_text() != "mine"


def test_init_writes_the_schema_that_the_manifest_names(run, tmp_path):
    file, schema = tmp_path / "manifest.yaml", tmp_path / "manifest.v1.schema.json"
    assert run("init", str(file))[0] == 0
    assert file.read_text().startswith(f"# yaml-language-server: $schema={schema.name}\n")
    made = json.loads(schema.read_text())
    assert "reverse_number.ReverseNumberAtomicFlow" in json.dumps(made)
    schema.write_text("mine")
    assert run("init", str(tmp_path / "second.yaml"))[0] == 0
    assert schema.read_text() == "mine"
    assert run("init", str(file), "--yes")[0] == 0
    assert json.loads(schema.read_text()) == made


def test_init_where_nothing_can_be_written_is_one_line(run, tmp_path):
    code, _, err = run("init", f"{tmp_path}/absent/manifest.yaml")
    assert (code, err.count("\n")) == (2, 1)


def test_the_schema_of_a_layer_requires_nothing(run):
    _, out, _ = run("schema", "--layer")
    assert "required" not in {*json.loads(out), *json.loads(out)["$defs"]["flow"]}


def test_the_schema_is_json(run):
    code, out, _ = run("schema")
    assert code == 0
    assert "2020-12" in json.loads(out)["$schema"]


def test_layers_profiles_and_env_files_reach_the_engine_with_absolute_paths(
    run, engine, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(MANIFEST + "profiles: {dev: {users: {user1: {}}}}\n")
    (tmp_path / "prod.yaml").write_text("name: ${oc.env:GREETING}\n")
    (tmp_path / "a.env").write_text("GREETING=secret\n")
    engine.answers["POST /v1/plan"] = PLAN
    over = ("--profile", "dev", "--env-file", "a.env")
    assert run("plan", "base.yaml", "-f", "prod.yaml", *over)[0] == 0
    assert run("plan", "-f", "base.yaml", "--layer", "prod.yaml", *over)[0] == 0
    sent = {
        "manifest": {
            "file": f"{tmp_path}/base.yaml",
            "layers": [f"{tmp_path}/prod.yaml"],
            "profiles": ["dev"],
            "env_files": [f"{tmp_path}/a.env"],
        },
        "environment": {},
    }
    assert engine.asked == [("/v1/plan", sent)] * 2


def test_layers_belong_to_one_manifest_and_nothing_is_not_one(run, file):
    code, _, err = run("validate", str(file), str(file), "-f", "x.yaml")
    assert (code, err) == (
        2,
        f"error: To which of {file}, {file} does the layer x.yaml belong? "
        "Name one manifest where there are layers.\n",
    )
    assert run("apply") == (
        2,
        "",
        "error: Missing argument 'FILE'. Name a manifest; to write one: engine init\n",
    )
