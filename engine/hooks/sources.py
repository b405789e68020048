"""Where a plugin's code is, and a digest of it."""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

_SUFFIXES = (".py", ".yaml", ".yml")


def find_source(module: str) -> str:
    """Return the folder of the top-most package of `module` that has code, or its single file.

    A package that is only a namespace, shared with others, is passed through. Returns "" when
    nothing is found; the plugin itself is not imported.
    """
    parts = module.split(".")
    try:
        specification = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return ""
    if specification is None:
        return ""
    if specification.origin is not None and specification.has_location:
        origin = Path(specification.origin)
        return str(origin.parent if origin.name == "__init__.py" else origin)
    return _below_namespace(list(specification.submodule_search_locations or ()), parts[1:])


def _below_namespace(folders: Sequence[str], parts: Sequence[str]) -> str:
    if not parts:
        return ""
    for folder in folders:
        place = Path(folder, parts[0])
        if (place / "__init__.py").is_file():
            return str(place)
        if place.with_suffix(".py").is_file():
            return str(place.with_suffix(".py"))
    return _below_namespace([str(Path(folder, parts[0])) for folder in folders], parts[1:])


def source_digest(location: str, class_names: Sequence[str]) -> str:
    """Return a digest of all code and YAML files of the plugin at `location`.

    For a plugin of a single file these are the file and, beside it, defaults of `class_names`.
    """
    whole = hashlib.sha256()
    for name, path in _files(location, class_names):
        try:
            status = path.stat()
            part = _file_digest(path, status.st_mtime_ns, status.st_size)
        except OSError:
            continue  # An editor is just replacing it; the next look finds it.
        whole.update(name.encode() + b"\0" + part)
    return whole.hexdigest()


def _files(location: str, class_names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    root = Path(location)
    if not location:
        return
    if root.is_file():
        yield root.name, root
        for name in sorted(class_names):
            defaults = root.with_name(f"{name}.yaml")
            if defaults.is_file():
                yield defaults.name, defaults
        return
    for path in sorted(root.rglob("*")):
        if path.suffix in _SUFFIXES and path.is_file():
            yield path.relative_to(root).as_posix(), path


@lru_cache(maxsize=8192)
def _file_digest(path: Path, mtime_ns: int, size: int) -> bytes:
    """Return the SHA-256 of the file, read again only when its time or size has changed."""
    return hashlib.sha256(path.read_bytes()).digest()
