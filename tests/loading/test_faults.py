"""Broken manifests, each with the exact lines that a user reads.

One of a single file is `faults/NAME.yaml`, and what it says `faults/NAME.expected`. One of several
is a folder `faults/NAME` with all its files, `expected`, and `arguments` as on a command line.
"""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import typer

from engine.cli.inputs import compositions
from engine.cli.options import EnvFiles, Files, Layers, Profiles
from engine.hooks import Catalog
from engine.loading import load_all
from engine.model.composition import Composition
from engine.model.errors import InvalidManifestError

FOLDER = Path(__file__).parent / "faults"
CASES = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("*/")])
SOURCES = sorted((Path(__file__).parents[2] / "engine" / "loading").glob("*.py"))

NOT_SAID_OF_MANIFESTS = {"configuration.py", "editors.py", "paths.py", "starter.py", "together.py"}
"""What they say is not of a broken manifest: test_together.py and tests/cli hold it."""
NOT_IN_A_REPOSITORY = {
    "it has more than … characters.",
    "The file may not be read.",
    "Let your user read it: chmod u+r",
    "The file is larger than 32 MiB.",
    "Split it in several.",
    "This is not a file.",
    "Name a manifest.",
    "The environment variable … is not UTF-8 text.",
}
"""No file that can well be checked in says this: test_source.py and test_load.py hold it."""
PYYAML = ("did not ", "could not ", "found ", "unexpected ", "block ", "mapping values ", "tab ")
"""So begin PyYAML's own words, which are put into others."""
NEVER_SAID = {
    "no such file",
    "Something is nested more than … levels deep.",
    "This is not YAML: ….",
    "unreachable: a fault was added",
    "it is not a single value",
    "This refers to a value that has a fault.",
    "… does not match …",
}
"""Parts of other sentences, or what takes the place of a sentence that is said elsewhere."""


def composition_of(case: Path) -> Composition:
    """Return the manifest of a case; its files are named from within its folder."""
    if case.is_file():
        return Composition(case.name)
    found: list[Composition] = []

    def command(
        files: Files = None,
        layers: Layers = None,
        profiles: Profiles = None,
        env_files: EnvFiles = None,
    ) -> None:
        found.extend(compositions(files, layers, profiles, env_files))

    application = typer.Typer(add_completion=False)
    application.command()(command)
    words = shlex.split((case / "arguments").read_text())
    typer.main.get_command(application).main(words, standalone_mode=False)
    return found[0]


def faults_of(
    case: Path, catalog: Catalog, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> InvalidManifestError:
    monkeypatch.chdir(case.parent if case.is_file() else case)
    with pytest.raises(InvalidManifestError) as caught:
        load_all([composition_of(case)], catalog, environment)
    return caught.value


def expected(case: Path) -> Path:
    return case.with_suffix(".expected") if case.is_file() else case / "expected"


def test_there_are_at_least_a_hundred_of_them() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_broken_manifest_says_what_is_wrong(
    case: Path, catalog: Catalog, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = faults_of(case, catalog, environment, monkeypatch)
    assert f"{found}\n" == expected(case).read_text()
    assert environment["SECRET"] not in str(found)
    assert len(str(found).splitlines()) == len(found.faults)
    files = list(dict.fromkeys(fault.file for fault in found.faults))
    places = [(files.index(fault.file), fault.line, fault.column) for fault in found.faults]
    assert places == sorted(places)


def test_every_sentence_that_loading_can_say_is_said_by_one_of_them() -> None:
    said = "\n".join(expected(case).read_text() for case in CASES)
    known = NOT_IN_A_REPOSITORY | NEVER_SAID
    unsaid = [
        f"{file.name}: {sentence}"
        for file in SOURCES
        if file.name not in NOT_SAID_OF_MANIFESTS
        for sentence in sentences(ast.parse(file.read_text()))
        if sentence not in known and not re.search(pattern(sentence), said, re.IGNORECASE)
    ]
    assert unsaid == []


def pattern(sentence: str) -> str:
    return ".*".join(re.escape(part) for part in sentence.split("…"))


def sentences(module: ast.AST) -> Iterator[str]:
    """Yield all texts of several words in a module but docstrings, … in place of what varies."""
    inner = {
        id(part)
        for node in ast.walk(module)
        if isinstance(node, ast.JoinedStr | ast.Expr)
        for part in ast.iter_child_nodes(node)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in inner:
            text = str(node.value)
        else:
            continue
        if re.search(r"\w \w", text) and not text.startswith(PYYAML):
            yield text.replace("{opened}", "…")
