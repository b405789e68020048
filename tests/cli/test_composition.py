"""config: the composed manifest, and where each of its values comes from."""

import json

import pytest

BASE = """\
apiVersion: engine/v1
name: shop-${oc.env:STAGE,test}
include: shared.yaml
core: {address: "https://core.example.org:2021"}
users:
  user0:
    jwt: eyJ.literal.token
    workers: {dispatch: 1}
    flows:
      echo:
        flow_class_name: reverse_number.ReverseNumberAtomicFlow
        config_overrides:
          key: "Bearer ${oc.env:KEY}"
          copied: ${users.user0.jwt}
"""
SHARED = "users:\n  user0:\n    workers: {dispatch: 5, get_instance: 3}\n"
LAYER = """\
users:
  user0:
    workers:
      dispatch: ${users.user0.workers.get_instance}
    flows:
      echo: {allow: ["${oc.env:WHO}"]}
"""


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEY", "s3cr3t")
    monkeypatch.setenv("WHO", "wh0")
    for name, text in {"base": BASE, "shared": SHARED, "prod": LAYER}.items():
        (tmp_path / f"{name}.yaml").write_text(text)


def test_the_composed_manifest_after_interpolation(run):
    assert run("config", "base.yaml", "-f", "prod.yaml") == (
        0,
        """\
users:
  user0:
    workers:
      dispatch: 3
      get_instance: 3
    jwt: (hidden)
    flows:
      echo:
        flow_class_name: reverse_number.ReverseNumberAtomicFlow
        config_overrides:
          key: Bearer ${oc.env:KEY}
          copied: (hidden)
        allow:
        - ${oc.env:WHO}
apiVersion: engine/v1
name: shop-${oc.env:STAGE,test}
core:
  address: https://core.example.org:2021
""",
        "",
    )


def test_the_composed_manifest_before_interpolation_as_json(run):
    code, out, _ = run(
        "config", "-f", "base.yaml", "-f", "prod.yaml", "--no-interpolate", "-o", "json"
    )
    user = json.loads(out)["users"]["user0"]
    assert code == 0
    assert user["workers"]["dispatch"] == "${users.user0.workers.get_instance}"
    assert user["jwt"] == "(hidden)"


def test_a_value_is_explained_with_what_it_overrides(run):
    explain = ("config", "base.yaml", "-f", "prod.yaml", "--explain")
    path = "users.user0.workers.dispatch"
    assert run(*explain, path) == (
        0,
        f"""\
{path}: 3
  set in  prod.yaml:4:7     "${{users.user0.workers.get_instance}}"  (layer)
  over    base.yaml:8:15    1
  over    shared.yaml:3:15  5                                      (included)
""",
        "",
    )
    assert json.loads(run(*explain, path, "-o", "json")[1]) == {
        "path": path,
        "value": 3,
        "written": "${users.user0.workers.get_instance}",
        "file": "prod.yaml",
        "line": 4,
        "column": 7,
        "origin": "layer",
        "overrides": [
            {"file": "base.yaml", "line": 8, "column": 15, "origin": "", "value": 1},
            {"file": "shared.yaml", "line": 3, "column": 15, "origin": "included", "value": 5},
        ],
    }


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("users.user0.jwt", '"(hidden)"'),
        ("users.user0.flows.echo.config_overrides.key", '"Bearer ${oc.env:KEY}"'),
        ("users.user0.flows.echo.config_overrides.copied", '"(hidden)"'),
        ("users.user0.flows.echo.allow[0]", '"${oc.env:WHO}"'),
        ("name", '"shop-${oc.env:STAGE,test}"'),
    ],
)
def test_no_secret_is_shown(run, path, shown):
    code, out, _ = run("config", "base.yaml", "-f", "prod.yaml", "--explain", path)
    assert (code, out.splitlines()[0]) == (0, f"{path}: {shown}")
    assert not any(secret in out for secret in ("s3cr3t", "wh0", "eyJ"))


def test_no_secret_is_shown_in_a_copy_either(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WHO", "wh0${")
    (tmp_path / "prod.yaml").write_text(
        LAYER + "  user1:\n    flows: ${users.user0.flows}\n    workers: ${users.user0.workers}\n"
    )
    code, out, _ = run("config", "base.yaml", "-f", "prod.yaml", "-o", "json")
    assert code == 0
    assert not any(secret in out for secret in ("s3cr3t", "wh0", "eyJ"))
    assert json.loads(out)["users"]["user1"] == {
        "flows": "${users.user0.flows}",
        "workers": {"dispatch": 3, "get_instance": 3},
    }


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        (
            "users.user0.flows.echo.singleton",
            1,
            "Nothing sets users.user0.flows.echo.singleton. Its default is false.",
        ),
        ("users.user0.wokers", 1, "Nothing sets users.user0.wokers. Did you mean workers?"),
        (
            "users..x",
            2,
            "users..x is not a path: it cannot be read from ..x on. Write it as faults do: "
            'users.user0.allow[0], users."a.b".',
        ),
    ],
)
def test_what_cannot_be_explained_is_one_line(run, path, code, message):
    assert run("config", "base.yaml", "--explain", path) == (code, "", f"error: {message}\n")


def test_what_cannot_be_read_is_told_with_its_place(run, tmp_path):
    (tmp_path / "prod.yaml").write_text("include: [none.yaml]\nusers: {user0: {jwt: '${nope}'}}\n")
    code, _, err = run("config", "base.yaml", "-f", "prod.yaml")
    assert code == 3
    assert err.splitlines()[0].startswith("prod.yaml:1:11: include[0]: none.yaml cannot be read")
