"""The pipeline: text, document, interpolation, schema, meaning, Manifest."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.loading.build import build
from engine.loading.check import MeaningCheck, check_reserved
from engine.loading.classes import Catalog, FlowClasses
from engine.loading.document import Document, read_document
from engine.loading.faults import Faults
from engine.loading.interpolation import Interpolation, written_variables
from engine.loading.paths import Path as ValuePath
from engine.loading.sentences import SchemaCheck
from engine.loading.source import decode, read
from engine.loading.suggestions import Suggestions
from engine.model.ids import is_name
from engine.model.manifest import Manifest

Environment = Mapping[str, str]
_EXTENSION = re.compile(r"\.(ya?ml|json)$", re.IGNORECASE)


def load(file: Path, catalog: Catalog, environment: Environment) -> Manifest:
    """Return the manifest in `file`.

    `environment` is what `${oc.env:…}` sees. Raises InvalidManifestError with all faults of the
    file, in its order; nothing else for any content.
    """
    faults = Faults(str(file))
    return _load(read(file, faults), file, catalog, environment, faults)


def load_text(
    text: str | bytes, file: Path, catalog: Catalog, environment: Environment
) -> Manifest:
    """Return the manifest in `text` as if it stood in `file`, which is not looked at.

    Raises InvalidManifestError as `load` does.
    """
    faults = Faults(str(file))
    content = text if isinstance(text, str) else decode(text, faults)
    return _load(content.removeprefix("\ufeff"), file, catalog, environment, faults)


def variables(text: str) -> set[str]:
    """Return the names of all environment variables that the manifest in `text` may refer to.

    Ones in comments are among them; the text need not be a valid manifest.
    """
    return written_variables(text)


def _load(
    text: str, file: Path, catalog: Catalog, environment: Environment, faults: Faults
) -> Manifest:
    suggestions = Suggestions()
    document = read_document(text, faults)
    check_reserved(document, faults)
    value, sources = _interpolated(document, catalog, environment, faults, suggestions)
    SchemaCheck(document, faults, suggestions, sources).check(value)
    classes = FlowClasses(catalog)
    MeaningCheck(document, faults, suggestions, classes, sources).check(value)
    name = _name(value, file, faults)
    faults.raise_if_any()
    return build(value, document, file, name)


def _interpolated(
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
        faults.add((0, 0), ("name",), message, "Write a name in it: name: <name>.")
    return name
