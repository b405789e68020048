"""Puts a manifest together: what it includes, the file itself, its profiles, and its layers.

Each file stands over what it includes, its profile over the file, a layer over all before it. A
file that is included more than once counts where it is first. All this is known before anything is
interpolated, so that a reference may lead from any file into any other.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.loading.contents import Contents
from engine.loading.document import Document, Part, Unknown, laid_over, read_document
from engine.loading.env_files import read_variables
from engine.loading.expressions import has_interpolation
from engine.loading.faults import Faults, Place
from engine.loading.paths import Path as ValuePath
from engine.loading.source import UnreadableError, absolute, decode
from engine.loading.suggestions import Suggestions, listing
from engine.model.composition import Composition
from engine.model.errors import InvalidManifestError

INCLUDE, PROFILES, ENV_FILE = "include", "profiles", "env_file"
_OWN_KEYS = (INCLUDE, PROFILES, ENV_FILE)
_DEEPEST = 50


@dataclass(frozen=True)
class Composed:
    """The document of all parts, before interpolation, and what the env files set."""

    document: Document
    variables: Mapping[str, str]


def compose(
    composition: Composition, contents: Contents, faults: Faults, suggestions: Suggestions
) -> Composed:
    """Return what `composition` is put together of.

    Raises InvalidManifestError, with the faults of all its files, when one cannot be read.
    """
    composer = _Composer(contents, faults, suggestions, composition.profiles)
    composer.add_manifest(composition.file)
    for layer in composition.layers:
        composer.add_layer(layer)
    for file in composition.env_files:
        composer.add_env_file(file, (file, 0, 0), ())
    if composer.broken or not composer.parts:
        faults.raise_if_any()
    composer.check_profiles(composition.file)
    return Composed(laid_over(composer.parts), composer.variables)


class _Composer:
    def __init__(
        self,
        contents: Contents,
        faults: Faults,
        suggestions: Suggestions,
        profiles: tuple[str, ...],
    ) -> None:
        self.parts: list[Part] = []
        self.variables: dict[str, str] = {}
        self.broken = False
        self._contents = contents
        self._faults = faults
        self._suggestions = suggestions
        self._wanted = profiles
        self._profiles: dict[str, None] = {}
        self._way: list[str] = []
        self._read: set[str] = set()

    # --- files --------------------------------------------------------------------------------

    def add_manifest(self, file: str) -> None:
        """Add the manifest's own file, which may be anything but empty."""
        document = self._document(file, (file, 0, 0))
        if document is None and not self.broken:
            hint = "Write a manifest to begin with: engine init"
            self._faults.add((file, 1, 1), (), "The file is empty.", hint)
            self.broken = True
        elif document is not None and isinstance(document.value, dict):
            self._add(file, document, "")
        elif document is not None:
            self.parts.append(document.parts[0])

    def add_layer(self, file: str) -> None:
        """Add a layer; one that says nothing is none."""
        document = self._document(file, (file, 0, 0))
        if document is not None and self._is_mapping(document):
            self._add(file, document, "layer")

    def _add_included(self, file: str, place: Place, path: ValuePath) -> None:
        known = str(absolute(Path(file)))
        if known in self._way:
            members = [*self._way[self._way.index(known) :], known]
            way = " -> ".join(Path(member).name for member in members)
            hint = "Let one of them include the other, and not both."
            self._faults.add(place, path, f"This file includes itself: {way}.", hint)
        elif len(self._way) >= _DEEPEST:
            message = f"Files include files more than {_DEEPEST} levels deep."
            self._faults.add(place, path, message, "Name them in one file.")
        elif known not in self._read:
            document = self._document(file, place, path)
            if document is not None and self._is_mapping(document):
                self._add(file, document, "included")

    def _is_mapping(self, document: Document) -> bool:
        if document.value is None:
            return False
        if not isinstance(document.value, dict | Unknown):
            message = "Expected a mapping of keys to values, as in a manifest."
            self._faults.add(document.place(()), (), message, "Write keys such as users: in it.")
        return isinstance(document.value, dict)

    def _document(self, file: str, place: Place, path: ValuePath = ()) -> Document | None:
        """Return what is in `file`, None when that is nothing or has a fault; then it is told."""
        self._faults.comes_next(file)
        known = str(absolute(Path(file)))
        self._read.add(known)
        try:
            content = self._contents.read(Path(file))
        except UnreadableError as error:
            self.broken = True
            if place[0] == file and self.parts:
                self._faults.add(place, path, error.message, "Paths begin at the current folder.")
            elif place[0] == file:
                self._faults.add(place, path, error.message, error.hint)
            else:
                self._unreadable(file, place, path, error)
            return None
        try:
            text = decode(content, file, self._faults)
            self._contents.manifests[known] = text
            return read_document(text, file, self._faults)
        except InvalidManifestError:
            self.broken = True
            return None

    def _unreadable(self, file: str, place: Place, path: ValuePath, error: UnreadableError) -> None:
        """Note that a file which another one names cannot be read, where it is named."""
        hint = error.hint
        if "no such file" in error.message:
            beside = self._contents.fragments(Path(file).parent) or ()
            name = self._suggestions.closest(Path(file).name, beside)
            hint = f"Did you mean {name}?" if name else "Paths begin at the folder of this file."
        self._faults.add(place, path, f"{file} cannot be read: {_reason(error)}", hint)

    def _add(self, file: str, document: Document, origin: str) -> None:
        self._way.append(str(absolute(Path(file))))
        folder = Path(file).parent
        for path, name in self._names(document, INCLUDE):
            self._include(_beside(folder, name), document.place(path), path)
        for path, name in self._names(document, ENV_FILE):
            self.add_env_file(_beside(folder, name), document.place(path), path)
        part = document.parts[0]
        value = {key: item for key, item in document.value.items() if key not in _OWN_KEYS}
        self.parts.append(Part(part.node, value, origin))
        self._add_profiles(document)
        self._way.pop()

    def _include(self, file: str, place: Place, path: ValuePath) -> None:
        names = self._contents.fragments(Path(file))
        if names is None:
            self._add_included(file, place, path)
            return
        for name in names:
            self._add_included(_beside(Path(file), name), place, path)

    def add_env_file(self, file: str, place: Place, path: ValuePath) -> None:
        """Take the variables of an env file, over those that are known."""
        self._faults.comes_next(file)
        try:
            content = self._contents.read(Path(file))
        except UnreadableError as error:
            missing = "no such file" in error.message
            hint = _WRITE_IT if missing else error.hint.replace("manifest", "file")
            message = f"The env file {file} cannot be read: {_reason(error)}"
            self._faults.add(place, path, message, hint)
            self.broken = True
            return
        try:
            text = decode(content, file, self._faults)
        except InvalidManifestError:
            self.broken = True
            return
        self.variables |= read_variables(text, file, self._faults)

    def _names(self, document: Document, key: str) -> Iterator[tuple[ValuePath, str]]:
        """Yield path and text of each file that is named at `key`; what is none is noted."""
        value = document.value.get(key, [])
        named = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, name in named:
            path: ValuePath = (key,) if index is None else (key, index)
            if isinstance(name, Unknown):
                continue
            if not isinstance(name, str) or not name:
                message = "Expected the path of a file, or a list of them."
                self._faults.add(document.place(path), path, message, f"Write {key}: [<file>].")
            elif has_interpolation(name):
                message = "Files are read before anything is interpolated."
                self._faults.add(document.place(path), path, message, "Write the path out.")
            else:
                yield path, name

    # --- profiles -----------------------------------------------------------------------------

    def _add_profiles(self, document: Document) -> None:
        profiles = document.value.get(PROFILES, {})
        if not isinstance(profiles, dict):
            if not isinstance(profiles, Unknown):
                message = "Expected a mapping of profiles, by name."
                hint = "Write profiles: {<name>: {users: …}}."
                self._faults.add(document.place((PROFILES,)), (PROFILES,), message, hint)
            return
        for name, profile in profiles.items():
            self._profiles[name] = None
            self._check_profile(document, (PROFILES, name), profile)
        for name in self._wanted:
            if isinstance(profiles.get(name), dict):
                self._faults.lift((PROFILES, name))
                self.parts.append(document.section((PROFILES, name), f"profile {name}"))

    def _check_profile(self, document: Document, path: ValuePath, profile: Any) -> None:
        if profile is not None and not isinstance(profile, dict | Unknown):
            message = "A profile is a mapping of what is laid over the manifest."
            hint = "Write keys such as users: in it."
            self._faults.add(document.place(path), path, message, hint)
        for key in _OWN_KEYS:
            if isinstance(profile, dict) and key in profile:
                message = f"A profile cannot have {key}."
                hint = "Write it beside profiles, or use a layer: -f FILE."
                self._faults.add(document.key_place((*path, key)), (*path, key), message, hint)
                self._faults.spoil((key,))

    def check_profiles(self, file: str) -> None:
        """Note each profile that is wanted and that no file has."""
        for name in self._wanted:
            if name not in self._profiles:
                known = f"There are: {listing(self._profiles)}." if self._profiles else _NO_PROFILE
                hint = self._suggestions.hint(name, self._profiles, known)
                self._faults.add((file, 0, 0), (PROFILES,), f"There is no profile {name}.", hint)


def _reason(error: UnreadableError) -> str:
    reason = error.message.removeprefix("The file cannot be read: ")
    return reason[0].lower() + reason[1:]


_WRITE_IT = "Write it, with a line NAME=value for each variable, or remove its name."
_NO_PROFILE = "There are none: write profiles: {<name>: {users: …}} in the manifest."


def _beside(folder: Path, name: str) -> str:
    """Return the path of a file that is named in a file of `folder`."""
    return os.path.normpath(folder / Path(name).expanduser())
