"""The files of one manifest: as they are now, and as they were when they were last good."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.controller.applied import AppliedRecord
from engine.controller.history import Generation
from engine.flows.catalog import DescribedCatalog
from engine.kits.digest import digest
from engine.loading import Contents, Loaded, check_together, load_composition
from engine.model.composition import Composition
from engine.model.errors import Fault, InvalidManifestError
from engine.model.manifest import Manifest


class ManifestFiles:
    """Reads what a manifest is put together of, when its content, or what it depends on, changed.

    `environment` is what an apply brought along; it goes before env files, `inherited` behind them.
    `texts` are those of the last good generation, by path.
    """

    def __init__(
        self, record: AppliedRecord, environment: Mapping[str, str], inherited: Mapping[str, str]
    ) -> None:
        self.name = record.name
        self.composition = record.composition
        self.texts = record.texts
        self._environment = dict(environment)
        self._inherited = inherited
        self._profiles = record.profiles
        self._contents = Contents()
        self._seen = ""

    @property
    def files(self) -> frozenset[str]:
        """Return the paths of all files on which the manifest depends."""
        named = {*self.composition.files, *self.composition.env_files}
        return self._contents.files | named

    @property
    def folders(self) -> frozenset[str]:
        """Return the paths of the folders whose fragments it includes."""
        return self._contents.folders

    def replace(self, composition: Composition, environment: Mapping[str, str]) -> None:
        """Read these from now on."""
        self.composition, self._environment = composition, dict(environment)
        self.forget()

    def forget(self) -> None:
        """Let the next look count as a change."""
        self._seen = ""

    async def changed(self, catalog: DescribedCatalog) -> bool:
        """Tell whether there is something that was not read yet; content decides, not time."""
        seen = self._dependencies(catalog)
        return seen != self._seen or await asyncio.to_thread(self._contents.changed)

    async def read(
        self, catalog: DescribedCatalog, others: Callable[[], Sequence[Manifest]]
    ) -> Loaded:
        """Return the manifest as it is now, if it can be taken up beside what `others` returns.

        Raises InvalidManifestError with all its faults; that its file is gone, or has another name
        now, is one as well.
        """
        self._seen, self._contents = self._dependencies(catalog), Contents()
        composition = self.composition
        try:
            loaded = await self._load(self._contents, catalog)
        except InvalidManifestError:
            if await asyncio.to_thread(Path(composition.file).exists):
                raise
            raise InvalidManifestError([_gone(composition.file, self.name)]) from None
        if self.composition != composition:
            return await self.read(catalog, others)  # `replace` was called meanwhile
        if loaded.manifest.name != self.name:
            raise InvalidManifestError([renamed(loaded.manifest, self.name)])
        try:
            # Only now: the others may have changed while the files were read.
            check_together([*others(), loaded.manifest])
        except InvalidManifestError:
            self.forget()  # the others may give up what this one wants, so look again
            raise
        return loaded

    async def last_good(self, catalog: DescribedCatalog, faults: InvalidManifestError) -> Loaded:
        """Return the manifest of the last good texts; raises `faults` when there are none.

        Raises InvalidManifestError, too, when they have become invalid: a class or a variable is
        not there any more. After either, the next look counts as a change.
        """
        try:
            if not self.texts:
                raise faults
            return await self._load(Contents(self.texts), catalog)
        except InvalidManifestError:
            self.forget()
            raise

    def take(self) -> bool:
        """Let what was read be the last good generation; tell whether it differs from before."""
        before = [*self.texts.values()], self._profiles
        self.texts, self._profiles = dict(self._contents.manifests), self.composition.profiles
        return before != ([*self.texts.values()], self._profiles)

    def record(self, generation: int, users: Iterable[str], removing: str) -> AppliedRecord:
        """Return what an engine that takes up from here needs to know."""
        return AppliedRecord(
            self.name,
            self.composition.file,
            generation,
            self.texts.get(self.composition.file, ""),
            tuple(sorted(users)),
            removing,
            **self._parts(),
        )

    def generation(self, number: int, now: float) -> Generation:
        """Return the last good texts as a generation that begins."""
        file = self.composition.file
        return Generation(self.name, number, now, file, self.texts[file], **self._parts())

    def _parts(self) -> dict[str, Any]:
        composition = self.composition
        return {
            "parts": {path: self.texts[path] for path in self.texts if path != composition.file},
            "layers": composition.layers,
            "profiles": composition.profiles,
            "env_files": composition.env_files,
        }

    def _dependencies(self, catalog: DescribedCatalog) -> str:
        return digest([self.composition.to_json(), self._environment, catalog.fingerprint])

    async def _load(self, contents: Contents, catalog: DescribedCatalog) -> Loaded:
        return await asyncio.to_thread(
            load_composition,
            self.composition,
            catalog,
            self._environment,
            contents,
            inherited=self._inherited,
        )


def renamed(manifest: Manifest, old: str) -> Fault:
    """Return what is wrong with a manifest that is applied under the name `old`."""
    place = manifest.places.get("name", (manifest.file, 0, 0))
    message = f"The manifest was applied as {old} and now names itself {manifest.name}."
    hint = f"Give it the old name, or run `engine down {old}` and apply it anew."
    return Fault(*place, "name", message, hint)


def _gone(file: str, name: str) -> Fault:
    message = "The file is gone; what it declared last is kept up."
    hint = f"Put it back, or take down what it declared: engine down {name}"
    return Fault(file, 0, 0, "", message, hint)
