"""The pipeline: files, document, interpolation, schema, meaning, Manifest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.loading.build import build
from engine.loading.check import MeaningCheck, check_reserved
from engine.loading.classes import Catalog, FlowClasses
from engine.loading.composing import compose
from engine.loading.contents import Contents
from engine.loading.document import Document
from engine.loading.faults import Faults
from engine.loading.interpolation import Interpolation, written_variables
from engine.loading.paths import Path as ValuePath
from engine.loading.sentences import SchemaCheck
from engine.loading.source import absolute
from engine.loading.suggestions import Suggestions
from engine.model.composition import Composition
from engine.model.ids import is_name
from engine.model.manifest import Manifest

Environment = Mapping[str, str]
_EXTENSION = re.compile(r"\.(ya?ml|json)$", re.IGNORECASE)


@dataclass(frozen=True)
class Loaded:
    """A manifest, and what the variables that its files refer to have as values."""

    manifest: Manifest
    environment: Mapping[str, str]


def load(file: Path, catalog: Catalog, environment: Environment) -> Manifest:
    """Return the manifest in `file`.

    `environment` is what `${oc.env:…}` sees. Raises InvalidManifestError with all faults of the
    file, in its order, and of those that it includes; nothing else for any content.
    """
    composition = Composition(str(file))
    return load_composition(composition, catalog, environment, Contents()).manifest


def load_text(
    text: str | bytes, file: Path, catalog: Catalog, environment: Environment
) -> Manifest:
    """Return the manifest in `text` as if it stood in `file`, which is not looked at.

    Raises InvalidManifestError as `load` does.
    """
    contents = Contents({str(absolute(file)): text})
    return load_composition(Composition(str(file)), catalog, environment, contents).manifest


def load_composition(
    composition: Composition,
    catalog: Catalog,
    environment: Environment,
    contents: Contents,
    *,
    inherited: Environment = MappingProxyType({}),
) -> Loaded:
    """Return the manifest that `composition` is, reading its files through `contents`.

    A variable has the value that `environment` gives it, else the env files, else `inherited`.
    Raises InvalidManifestError as `load` does; `contents` knows then, too, what was read.
    """
    faults, suggestions = Faults(), Suggestions()
    composed = compose(composition, contents, faults, suggestions)
    document = composed.document
    known = {**inherited, **composed.variables, **environment}
    check_reserved(document, faults)
    value, sources = interpolated(document, catalog, known, faults, suggestions)
    SchemaCheck(document, faults, suggestions, sources).check(value)
    classes = FlowClasses(catalog)
    MeaningCheck(document, faults, suggestions, classes, sources).check(value)
    file = Path(composition.file)
    name = _name(value, file, faults)
    faults.raise_if_any()
    referred = variables("\n".join(contents.manifests.values()))
    return Loaded(
        build(value, document, file, name),
        {name: known[name] for name in sorted(referred) if name in known},
    )


def variables(text: str) -> set[str]:
    """Return the names of all environment variables that the manifest in `text` may refer to.

    Ones in comments are among them; the text need not be a valid manifest.
    """
    return written_variables(text)


def interpolated(
    document: Document,
    catalog: Catalog,
    environment: Environment,
    faults: Faults,
    suggestions: Suggestions,
) -> tuple[Any, Mapping[ValuePath, str]]:
    """Return the value with interpolations resolved, and what was written for those that hide."""
    interpolation = Interpolation(document.value, catalog.resolvers, environment, suggestions)
    value = interpolation.resolve()
    for path, (message, hint) in interpolation.problems.items():
        faults.add(document.place(path), path, message, hint)
    for path in interpolation.failed:
        faults.spoil(path)
    return value, interpolation.sources()


def _name(value: Any, file: Path, faults: Faults) -> str:
    """Return the manifest's name: what it says, else the file's name without its extension."""
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    name = _EXTENSION.sub("", file.name)
    if not is_name(name):
        message = f"The file's name, {file.name}, cannot be the manifest's."
        faults.add((str(file), 0, 0), ("name",), message, "Write a name in it: name: <name>.")
    return name
