"""The file of an applied manifest: read again at each turn, and what may have become of it."""

from collections.abc import Mapping
from pathlib import Path

from engine.flows.catalog import DescribedCatalog
from engine.loading import load
from engine.model.errors import Fault, InvalidManifestError
from engine.model.manifest import Manifest


def read_text(file: str) -> str | None:
    """Return the text of `file`, None when it cannot be read; `load` says why."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def load_applied(
    file: str, name: str, catalog: DescribedCatalog, environment: Mapping[str, str]
) -> Manifest:
    """Return the manifest in `file`, which is applied as `name`.

    Raises InvalidManifestError with all its faults; that it is gone, or has another name now, is
    one as well.
    """
    try:
        manifest = load(Path(file), catalog, environment)
    except InvalidManifestError:
        if Path(file).exists():
            raise
        raise InvalidManifestError([_gone(file, name)]) from None
    if manifest.name != name:
        raise InvalidManifestError([renamed(manifest, name)])
    return manifest


def renamed(manifest: Manifest, old: str) -> Fault:
    """Return what is wrong with a manifest that is applied under the name `old`."""
    line, column = manifest.places.get("name", (0, 0))
    message = f"The manifest was applied as {old} and now names itself {manifest.name}."
    hint = f"Give it the old name, or run `engine down {old}` and apply it anew."
    return Fault(manifest.file, line, column, "name", message, hint)


def _gone(file: str, name: str) -> Fault:
    message = "The file is gone; what it declared last is kept up."
    hint = f"Put it back, or take down what it declared: engine down {name}"
    return Fault(file, 0, 0, "", message, hint)
