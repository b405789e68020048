"""Several manifests: loading them all, and what they may not have in common."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from engine.loading.classes import Catalog
from engine.loading.contents import Contents
from engine.loading.load import Loaded, load_composition
from engine.loading.paths import path_text
from engine.model.composition import Composition
from engine.model.errors import Fault, InvalidManifestError
from engine.model.manifest import Manifest


def load_all(
    compositions: Sequence[Composition],
    catalog: Catalog,
    environment: Mapping[str, str],
    *,
    inherited: Mapping[str, str] = MappingProxyType({}),
) -> list[Loaded]:
    """Return the manifests that `compositions` are, in that order.

    Raises InvalidManifestError with the faults of all of them.
    """
    loaded: list[Loaded] = []
    faults: list[Fault] = []
    for composition in compositions:
        try:
            loaded.append(
                load_composition(composition, catalog, environment, Contents(), inherited=inherited)
            )
        except InvalidManifestError as error:
            faults += error.faults
    if faults:
        raise InvalidManifestError(faults)
    return loaded


def check_together(manifests: Sequence[Manifest]) -> None:
    """Check that no two manifests have one name, or one flow endpoint or mount of one user.

    Users of one name are the same user when their core is the same. Raises InvalidManifestError;
    each fault is of the later manifest, and names the earlier one.
    """
    faults: list[Fault] = []
    owners: dict[tuple[str, str], Manifest] = {}
    for manifest in manifests:
        for claim, path in _claims(manifest):
            owner = owners.setdefault((claim, path), manifest)
            if owner is not manifest:
                faults.append(_shared(owner, manifest, path))
    if faults:
        raise InvalidManifestError(faults)


def _claims(manifest: Manifest) -> Iterable[tuple[str, str]]:
    """Yield what only one manifest may have, as what it is claimed in and its path."""
    yield manifest.name, "name"
    for name, user in manifest.users.items():
        for section, entries in (("flows", user.flows), ("mounts", user.mounts)):
            for entry in entries:
                yield f"core {manifest.core.address}", path_text(("users", name, section, entry))


def _shared(owner: Manifest, other: Manifest, path: str) -> Fault:
    if path == "name":
        what = f"The name {other.name} is also that of {_where(owner, path)}."
        hint = "A manifest owns what it creates by its name: give one of them another."
    else:
        what = f"{_where(owner, path)} (manifest {owner.name}) has it, too."
        hint = "Only one manifest can own it: remove it from the other."
    place = other.places.get(path, (other.file, 0, 0))
    return Fault(*place, path, what, hint)


def _where(manifest: Manifest, path: str) -> str:
    file, line, column = manifest.places.get(path, (manifest.file, 0, 0))
    return f"{file}:{line}:{column}" if line else file
