"""A third party's package: installed, named in a manifest, served; broken, and repaired."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.engine import EngineCommand

PAGE = (ROOT / "docs" / "plugins.md").read_text()
FILES = re.findall(r"^```(?:toml|python|yaml)\n# (\S+)\n(.*?)^```$", PAGE, re.M | re.S)
TEXTS = '{"first": "to be or not to be", "second": "that is all"}'
BROKEN = "import nothing_of_this_name\n"
SHOUT = '''\
from engine.flows import AtomicFlow
from engine.hooks import hookimpl


class ShoutFlow(AtomicFlow):
    """Answers with `text` in capitals."""

    __default_flow_config = {"name": "Shout", "description": "Shouts."}

    def run(self, input_message):
        answer = {"text": input_message.data["text"].upper()}
        self.send_message(self.package_output_message(input_message, answer))


@hookimpl
def register_flow_classes():
    return [ShoutFlow]
'''
BOTH = """\
apiVersion: engine/v1
users:
  author:
    workers:
      dispatch: {coflows_dispatch: 1, shouting: 1}
    flows:
      count_words: {flow_class_name: words.CountWordsFlow}
      compare_texts: {flow_class_name: words.CompareTextsFlow}
      shout: {flow_class_name: shouts.ShoutFlow, dispatch_point: shouting}
    mounts:
      compare: {flow_endpoint: compare_texts}
"""
ALONE = """\
apiVersion: engine/v1
users:
  reader:
    flows:
      s: {flow_class_name: shouts.ShoutFlow}
"""


class Site:
    """A folder that Python imports from, with distributions as an installer leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def install(self, distribution: str, plugin: str, module: str) -> None:
        info = f"{distribution.replace('-', '_')}-0.1.0.dist-info"
        self.write(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1.0\n"
        )
        self.write(f"{info}/entry_points.txt", f"[colink_engine]\n{plugin} = {module}\n")


@pytest.fixture
def site(engine: EngineCommand, tmp_path: Path) -> Site:
    """The plugin of docs/plugins.md and another one, installed for the engine under test."""
    site = Site(tmp_path / "site")
    for name, text in FILES:
        if name.startswith("word_flows/"):
            site.write(name, text)
    site.install("word-flows", "words", "word_flows.plugin")
    site.write("shouts.py", SHOUT)
    site.install("shout-flows", "shouts", "shouts")
    path = os.environ.get("PYTHONPATH", "")
    engine.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site.folder), path]))
    return site


def manifest(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def plugins(engine: EngineCommand) -> dict[str, Any]:
    return {plugin["name"]: plugin for plugin in engine.json("plugins")}


def answer(engine: EngineCommand, target: str, data: str) -> Any:
    return json.loads(engine("call", target, data).stdout)


def test_an_installed_package_is_served_as_its_page_says(
    engine: EngineCommand, site: Site, tmp_path: Path
) -> None:
    (text,) = [text for name, text in FILES if name == "words.yaml"]
    words = manifest(tmp_path, "words.yaml", text)
    assert plugins(engine)["words"]["location"] == str(site.folder / "word_flows")
    assert "words.CompareTextsFlow" in engine("schema").stdout
    engine("apply", words)
    assert answer(engine, "author/compare", TEXTS) == {"difference": 3}

    flows = (site.folder / "word_flows" / "flows.py").read_text()
    site.write("word_flows/flows.py", flows.replace('"difference"', '"words_apart"'))
    engine("apply", words)
    assert answer(engine, "author/compare", TEXTS) == {"words_apart": 3}


def test_a_plugin_that_does_not_import_blocks_only_what_needs_it(
    engine: EngineCommand, site: Site, tmp_path: Path
) -> None:
    good = (site.folder / "word_flows" / "flows.py").read_text()
    both = manifest(tmp_path, "both.yaml", BOTH)
    engine("apply", both)

    site.write("word_flows/flows.py", BROKEN)
    listed = plugins(engine)
    assert listed["words"]["error"].startswith("ModuleNotFoundError: ")
    assert listed["words"]["classes"] == []
    assert listed["shouts"]["error"] is None
    assert "broken" in engine("plugins").stdout

    faults = json.loads(engine("validate", both, "-o", "json", expect=3).stdout)
    assert [fault["path"] for fault in faults] == [
        "users.author.flows.count_words.flow_class_name",
        "users.author.flows.compare_texts.flow_class_name",
    ]
    assert "the plugin words is broken: ModuleNotFoundError" in faults[0]["message"]

    both.write_text(BOTH)  # a save: the engine looks again
    engine.until(lambda status: "words is broken" in json.dumps(status["manifests"]))
    assert answer(engine, "author/shout", '{"text": "still here"}') == {"text": "STILL HERE"}
    assert answer(engine, "author/compare", TEXTS) == {"difference": 3}
    engine("apply", manifest(tmp_path, "alone.yaml", ALONE))
    assert answer(engine, "reader/s", '{"text": "me too"}') == {"text": "ME TOO"}

    site.write("word_flows/flows.py", good)
    engine("apply", both)
    assert answer(engine, "author/compare", TEXTS) == {"difference": 3}
