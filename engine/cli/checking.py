"""Checking manifests in this process, before any engine is asked. Heavy to import: YAML, schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.cli.installation import catalog
from engine.loading import check_together, load_all
from engine.model.composition import Composition


@dataclass(frozen=True)
class Checked:
    """Manifests without a fault: of what they are put together (absolute paths), their names.

    `environment` has the variables that they refer to, as far as this process has them; what their
    env files say is not in it, for whoever loads them reads these again.
    """

    compositions: tuple[Composition, ...]
    names: tuple[str, ...]
    environment: dict[str, str]


def check(compositions: Sequence[Composition], environment: Mapping[str, str]) -> Checked:
    """Check manifests alone and together; `environment` gives the values of `${oc.env:...}`.

    A file that is named twice counts once.
    Raises InvalidManifestError with all faults of all files.
    """
    once = {composition.absolute(): composition for composition in reversed(compositions)}
    loaded = load_all([*reversed(once.values())], catalog(), environment)
    check_together([found.manifest for found in loaded])
    needed = {name for found in loaded for name in found.environment}
    return Checked(
        tuple(reversed(once)),
        tuple(found.manifest.name for found in loaded),
        {name: environment[name] for name in sorted(needed) if name in environment},
    )
