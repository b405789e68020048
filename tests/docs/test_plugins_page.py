"""docs/plugins.md, done as it says: every file of the page is written, installed and run."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, entry_points
from pathlib import Path

import pytest

from engine.flows import Flow, FlowFailedError
from engine.flows.interfaces import _MODULES
from engine.hooks import load_catalog, specs
from engine.loading import load_text
from engine.testing import LocalPort

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
FILE = re.compile(r"^```(?:toml|python|yaml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path, monkeypatch):
    before = set(sys.modules)
    for name, text in FILE.findall(PAGE):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    info = tmp_path / "word_flows-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {settings['name']}\nVersion: {settings['version']}\n"
    )
    points = settings["entry-points"]["colink_engine"]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[colink_engine]\n{lines}")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def catalog_of(project, others=()):
    return load_catalog(Flow, [*others, *points_of(project)])


def points_of(project):
    return [
        point
        for distribution in distributions(path=[str(project)])
        for point in distribution.entry_points
    ]


def test_every_block_is_a_file_or_a_session():
    assert len(FILE.findall(PAGE)) + PAGE.count("```console") == PAGE.count("```") // 2


def test_the_plugin_is_found_with_its_classes(project):
    catalog = catalog_of(project)
    assert [(plugin.name, plugin.error) for plugin in catalog.plugins] == [("words", None)]
    assert catalog.names() == (
        "words.CompareTextsFlow",
        "words.CountWordsFlow",
        "words.LongestTextFlow",
    )
    text = (project / "words.yaml").read_text()
    for name in re.findall(r"flow_class_name: (\S+)", text):
        assert catalog.flow_class(name)


def test_the_pages_own_tests_pass(project):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=project,
        env={"PYTHONPATH": f"{ROOT}:{project}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_the_session_shows_what_the_flow_answers(project):
    _, call, answer = re.search(r"(\$ engine call \S+ '(.*)')\n(.*)\n```", PAGE).groups()
    module = importlib.import_module("word_flows.flows")
    with LocalPort() as world:
        counter = world.mount(module.CountWordsFlow)
        compare = world.mount(module.CompareTextsFlow, {"counter": counter})
        assert world.ask(compare, json.loads(call)) == json.loads(answer)


@pytest.mark.parametrize("name", ["words.yaml", "composed.yaml"])
def test_the_manifests_are_valid(project, name):
    ours = [point for point in entry_points(group="colink_engine") if point.name == "engine"]
    file = project / name
    assert load_text(file.read_text(), file, catalog_of(project, ours), {}).users["author"].mounts


@pytest.mark.parametrize(
    "name", ["example_functions", "example_interface", "example_resolvers", "example_schemas"]
)
def test_the_examples_run(project, name):
    module = importlib.import_module(name)
    if name == "example_functions":
        with LocalPort() as world:
            (add,) = module.register_flow_classes()
            assert world.ask(world.mount(add), {"a": 1, "b": 2}) == {"total": 3, "terms": 2}
    if name == "example_schemas":
        with LocalPort() as world, pytest.raises(FlowFailedError, match=r"data\.text is integer"):
            world.ask(world.mount(module.SplitFlow), {"text": 1})
    if name == "example_resolvers":
        assert module.register_resolvers()["endpoint"]("count_words", 2) == "count_words_v2"


def test_every_hook_and_transformation_is_on_the_page():
    hooks = [name for name in vars(specs) if name.startswith("register_")]
    assert len(hooks) == 2
    for name in [*hooks, *_MODULES]:
        assert f"`{name}(" in PAGE
